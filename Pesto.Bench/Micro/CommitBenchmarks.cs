using BenchmarkDotNet.Attributes;
using Pesto.Forwarder.Accepting;
using Pesto.Forwarder.Commit;
using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Loop;
using Pesto.Forwarder.Namespace;
using Pesto.Forwarder.Reporting;
using Pesto.Forwarder.Tcp;
using Pesto.Forwarder.Udp;
using Pesto.Linux;
using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Bench.Micro;

/// <summary>
/// A commit without traffic, from start to end, on real listening sockets. One that keeps all of them is planning and nothing else;
/// one that moves half of them shows what opening and closing adds.
/// </summary>
public class CommitBenchmarks
{
    const ushort First = 10_000;
    Tables tables = new();
    Transaction? transaction;
    bool shifted;

    /// <summary>Listening sockets.</summary>
    [Params(10, 1_000, 8_000)]
    public int Sockets { get; set; }

    [GlobalSetup]
    public void SetUp()
    {
        CurrentNamespace side = new();
        Counters counters = new();
        EventLoop loop = new();
        Backpressure limits = new(loop);
        Listeners listeners = new(3 * this.Sockets);
        TcpFlows flows = new(loop, counters, limits, 16, 3 * this.Sockets, default, 0);
        this.tables = new(new Tables.PifEntry(Pif.Host, Pif.HostName, ExampleRules.Everything, side, side));
        Targets targets = new(Address.LoopbackV4, Address.LoopbackV6);
        UdpFlows udp = new(loop, counters, limits, this.tables, listeners, targets, new(16, 3 * this.Sockets, 0, 0));
        Acceptor acceptor = new(loop, this.tables, listeners, flows, udp, limits, targets, counters, 3 * this.Sockets);
        this.transaction = new(loop, this.tables, listeners, acceptor, counters, default);
        this.Commit(First);
    }

    [GlobalCleanup]
    public void CleanUp()
    {
        this.tables.ClearShadow();
        this.Run();
    }

    [Benchmark]
    public int Keep() => this.Commit(First);

    [Benchmark]
    public int MoveHalf()
    {
        this.shifted = !this.shifted;
        return this.Commit(this.shifted ? First + (this.Sockets / 2) : First);
    }

    int Commit(int first)
    {
        this.tables.ClearShadow();
        Rule rule = ExampleRules.Ports((ushort)first, this.Sockets);
        if (this.tables.AddToShadow(0, in rule, out int _) != RuleFault.None)
            throw new InvalidOperationException("the rule is invalid");
        return this.Run();
    }

    int Run()
    {
        this.transaction!.Apply(commit: true, () => { });
        this.transaction.RunToEnd();
        return this.transaction.FailureCount == 0 ? this.transaction.Stolen : throw new InvalidOperationException("a port could not be opened");
    }
}
