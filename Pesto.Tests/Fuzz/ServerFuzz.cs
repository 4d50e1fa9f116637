using Pesto.Forwarder.Accepting;
using Pesto.Forwarder.Commit;
using Pesto.Forwarder.Control;
using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Loop;
using Pesto.Forwarder.Namespace;
using Pesto.Forwarder.Reporting;
using Pesto.Forwarder.Tcp;
using Pesto.Forwarder.Udp;
using Pesto.Linux;
using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Tests.Fuzz;

/// <summary>A client that sends anything gets its tables in force, or leaves no trace.</summary>
[Collection(Alone.Name)]
public sealed class ServerFuzz(ITestOutputHelper output)
{
    const Capabilities All = Capabilities.V4 | Capabilities.V6 | Capabilities.Tcp | Capabilities.Udp | Capabilities.Interface;
    const int MostSockets = 48;
    const long Timeout = 60_000;

    [Fact]
    public void Any_update_is_read_the_same_however_it_is_cut()
    {
        Bytes bytes = new(64 * 1024);
        NetworkNamespace side = new Nowhere();
        Tables whole = NewTables(side), cut = NewTables(side);
        UpdateReader readWhole = new(whole), readCut = new(cut);
        byte[][] corpus = [.. Corpora.Updates];
        new Inputs(output, 20_000).Try((ref Chance chance) =>
        {
            bytes.Set(chance.Of<byte[]>(corpus));
            bytes.Change(ref chance, corpus);
            readWhole.Begin();
            readCut.Begin();
            UpdateReader.Progress expected = readWhole.Take(bytes.Span, out int taken);
            Assert.InRange(taken, 0, bytes.Length);

            int from = 0, to = 0;
            UpdateReader.Progress progress = UpdateReader.Progress.NeedsMore;
            while (progress == UpdateReader.Progress.NeedsMore && to < bytes.Length)
            {
                to = Math.Min(bytes.Length, to + 1 + chance.Below(100));
                progress = readCut.Take(bytes.Span[from..to], out int more);
                from += more;
            }

            Assert.Equal(expected, progress);
            Assert.Equal(taken, from);
            Assert.Equal(readWhole.Reason, readCut.Reason);
            ClientFuzz.AssertPrintable(readWhole.Reason);
            for (int pif = 0; pif < Tables.PifCount; pif++)
            {
                Assert.True(whole.Rules(pif, whole.Shadow).SequenceEqual(cut.Rules(pif, cut.Shadow)));
                foreach (ref readonly Rule rule in whole.Rules(pif, whole.Shadow))
                    Assert.Equal(RuleFault.None, RuleCheck.Check(in rule, All));
            }
        });
    }

    [Fact]
    public void Any_session_ends_and_what_listens_is_what_the_tables_say()
    {
        Result nothing = Files.Open("/dev/null", Files.WriteOnly);
        Log.WriteTo(nothing.OrThrow("/dev/null"), withTime: false);
        Bytes bytes = new(64 * 1024);
        NetworkNamespace side = new Nowhere();
        EventLoop loop = new();
        Counters counters = new();
        // Old and new tables may both have all their sockets for a while.
        DescriptorBudget budget = new(8 * MostSockets);
        LimitLog limits = new(loop, counters, budget);
        Tables tables = NewTables(side);
        Listeners listeners = new(budget);
        Targets targets = new(Address.LoopbackV4, Address.LoopbackV6);
        PipePool pipes = new(budget);
        TcpFlows tcp = new(loop, counters, limits, budget, listeners, pipes, default, 0);
        UdpFlows udp = new(loop, counters, limits, budget, tables, listeners, targets, new(budget.Most(DescriptorUse.UdpFlow), listeners.Capacity, 30_000, 30_000));
        Acceptor acceptor = new(loop, tables, listeners, tcp, udp, new(budget, pipes, udp), limits, budget, targets, counters);
        PortTakeover takeover = new(tables, listeners);
        ListenerOpener opener = new(tables, listeners, takeover, counters, default);
        ListenerCloser closer = new(loop, tables, listeners, acceptor, takeover, counters);
        Transaction transaction = new(loop, tables, listeners, acceptor, opener, closer, null, counters);
        Session session = new(loop, tables, transaction, Timeout, MostSockets, null);
        byte[][] corpus = [.. Corpora.Updates];
        byte[] answer = new byte[256 * 1024];
        new Inputs(output, 1_000).Try((ref Chance chance) =>
        {
            bytes.Set(chance.Of<byte[]>(corpus));
            if (!chance.OneIn(4))
                bytes.Change(ref chance, corpus);
            (int theirs, int ours) = Pair.Open(Pair.Stream | Pair.NonBlocking);
            Pair.Say(ours, bytes.Span);
            _ = Sockets.Shutdown(ours, Sockets.ShutWrite);
            session.Begin(theirs, default, Timeout, _ => loop.Stop());
            if (!session.IsIdle)
                loop.Run(tcp, udp, acceptor, transaction, session.Timer);
            Assert.True(session.IsIdle);
            Assert.Equal(tables.SocketsWanted(tables.Active), listeners.Count);
            Hear(ours, answer);
            Descriptors.Close(ours);
        });
        // Other tests open and close descriptors of this process at the same time; those here are counted by who opens and closes them.
        Assert.Equal(listeners.Count, counters.SocketsOpened - counters.SocketsClosed);
    }

    /// <summary>What the server says is what a client of ours understands.</summary>
    static unsafe void Hear(int ours, byte[] answer)
    {
        int length = 0;
        fixed (byte* p = answer)
        {
            while (Sockets.Receive(ours, p + length, answer.Length - length) is { Ok: true, Value: > 0 and int more })
                length += more;
        }

        Assert.NotNull(ServerState.Read(answer.AsSpan(0, length), out _));
    }

    static Tables NewTables(NetworkNamespace side) => new(new Tables.PifEntry(Pif.Host, Pif.HostName, All, side, side), new Tables.PifEntry(Pif.Splice, Pif.SpliceName, All, side, side));

    /// <summary>A side on which every socket can be had, and none is one: sockets would cost more than all that is tried.</summary>
    sealed class Nowhere : NetworkNamespace
    {
        public override HalfOpenConnections HalfOpen { get; } = new();

        public override ISocketList SocketList => throw new NotSupportedException();

        public override Result OpenInterfaceEvents() => throw new NotSupportedException();

        public override Result Tcp(ushort family) => Descriptors.EventCounter();

        public override Result Udp(ushort family) => Descriptors.EventCounter();

        public override void Listen(Span<ListenRequest> orders)
        {
            foreach (ref ListenRequest order in orders)
                order.Outcome = Descriptors.EventCounter();
        }

        public override bool IsLocal(Address address) => address.IsLoopback;
    }
}
