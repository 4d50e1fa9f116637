using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using Pesto.Protocol;
using Pesto.Rules;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Soak;

/// <summary>
/// Everything at once, for as long as PESTO_SOAK says in minutes: streams, short connections and datagrams, each byte of them checked; clients that
/// break off; tables that change, are rolled back and are abandoned. At the end all is as it was.
/// </summary>
public sealed class SoakTests(ITestOutputHelper output)
{
    const int Usually = 5;

    [Fact]
    public void After_hours_of_everything_it_is_as_it_was()
    {
        TimeSpan time = double.TryParse(Environment.GetEnvironmentVariable("PESTO_SOAK"), CultureInfo.InvariantCulture, out double minutes)
            ? TimeSpan.FromMinutes(minutes) : TimeSpan.FromSeconds(Usually);
        using Testbed bed = new() { Program = Programs.Checked };
        using TcpService echo = TcpService.Echo(bed.Container, 80);
        using UdpEcho datagrams = new(bed.Container, 53);
        using RunningForwarder pesto = bed.Serve("-t", "8080:80", "-u", "5353:53", "--conf-timeout", "2", "--udp-timeout", "2", "--udp-stream-timeout", "2");
        Load load = new(bed, pesto.Control);

        load.Run(TimeSpan.FromSeconds(2));
        (int descriptors, long resident) = Settled(pesto, 0);
        Stopwatch watch = Stopwatch.StartNew();
        load.Run(time);
        (int descriptorsAfter, long residentAfter) = Settled(pesto, descriptors);
        Dictionary<string, long> statistics = pesto.Statistics();
        output.WriteLine($"{watch.Elapsed.TotalMinutes:F1} minutes: {load}");
        output.WriteLine($"descriptors {descriptors} before, {descriptorsAfter} after; resident {resident >> 10} KB before, {residentAfter >> 10} KB after");
        output.WriteLine(string.Join(' ', statistics.Select(pair => $"{pair.Key}={pair.Value}")));
        Assert.Equal("", load.Problems);
        Assert.Equal(0, statistics["tcp_open"]);
        Assert.Equal(0, statistics["udp_open"]);
        Assert.InRange(descriptorsAfter, 0, descriptors + 40);
        Assert.InRange(residentAfter, 0, resident + (16 << 20));
    }

    /// <summary>Waits until flows are over and forgotten.</summary>
    static (int Descriptors, long Resident) Settled(RunningForwarder pesto, int expected)
    {
        ControlClient.Replace(pesto.Control, Load.Stays());
        Eventually.True(() => pesto.Statistics() is { } now && now["tcp_open"] == 0 && now["udp_open"] == 0, "all flows end");
        if (expected > 0)
            Eventually.True(() => pesto.Process.Descriptors <= expected + 40, "descriptors are given back");
        return (pesto.Process.Descriptors, pesto.Process.Resident);
    }

    /// <summary>What goes on at the same time.</summary>
    sealed class Load(Testbed bed, string control)
    {
        long _bytes, _connections, _questions, _unanswered, _changes, _rollbacks, _broken;
        string _problems = "";
        volatile bool _stopped;

        public string Problems => _problems;

        public void Run(TimeSpan time)
        {
            _stopped = false;
            Action<Random>[] all = [Stream, Stream, Stream, Connect, Connect, Ask, Ask, BreakOff, Change, AbandonChange];
            Thread[] threads = [.. all.Select((one, i) => new Thread(() => Repeat(one, new Random((int)time.Ticks + i))))];
            foreach (Thread thread in threads)
                thread.Start();
            Thread.Sleep(time);
            _stopped = true;
            foreach (Thread thread in threads)
                thread.Join();
        }

        void Repeat(Action<Random> one, Random chance)
        {
            while (!_stopped && _problems.Length < 4000)
            {
                try
                {
                    one(chance);
                }
                catch (Exception e)
                {
                    lock (this)
                        _problems += $"{one.Method.Name}: {e.GetType().Name} {e.Message}\n";
                }
            }
        }

        /// <summary>Much, there and back, while more is sent; and every byte is the one that was sent.</summary>
        void Stream(Random chance)
        {
            using Socket socket = bed.Host.Connect(8080);
            long length = chance.Next(1, 1 << chance.Next(10, 24));
            int seed = chance.Next();
            Task sender = Task.Run(() =>
            {
                byte[] piece = new byte[65536];
                Random made = new(seed);
                for (long left = length; left > 0;)
                {
                    Span<byte> part = piece.AsSpan(0, (int)Math.Min(left, piece.Length));
                    made.NextBytes(part);
                    left -= part.Length;
                    for (int sent = 0; sent < part.Length;)
                        sent += socket.Send(piece.AsSpan(sent, (int)(part.Length - sent)));
                }

                socket.Shutdown(SocketShutdown.Send);
            });
            Random expected = new(seed);
            byte[] wanted = new byte[65536];
            for (long left = length; left > 0;)
            {
                Span<byte> part = wanted.AsSpan(0, (int)Math.Min(left, wanted.Length));
                expected.NextBytes(part);
                Assert.True(part.SequenceEqual(socket.ReadExactly(part.Length)), "corrupted bytes");
                left -= part.Length;
            }

            Assert.Equal(0, socket.Receive(wanted));
            sender.Wait();
            Interlocked.Add(ref _bytes, length);
        }

        void Connect(Random chance)
        {
            using Socket socket = bed.Host.Connect(8080);
            for (int i = chance.Next(4); i >= 0; i--)
                Assert.Equal("ping", socket.Exchange("ping"));
            socket.LingerState = new LingerOption(chance.Next(2) == 0, 0);
            Interlocked.Increment(ref _connections);
        }

        /// <summary>A datagram may get lost; one that comes is the one that was sent.</summary>
        void Ask(Random chance)
        {
            using Socket socket = bed.Host.ConnectUdp(5353);
            socket.ReceiveTimeout = 1000;
            byte[] question = new byte[chance.Next(1, 1400)], answer = new byte[2048];
            for (int i = chance.Next(50); i >= 0; i--)
            {
                chance.NextBytes(question);
                socket.Send(question);
                try
                {
                    int length = socket.Receive(answer);
                    Assert.True(answer.AsSpan(0, length).SequenceEqual(question), "corrupted datagram");
                }
                catch (SocketException e) when (e.SocketErrorCode == SocketError.TimedOut)
                {
                    Interlocked.Increment(ref _unanswered);
                    return;
                }

                Interlocked.Increment(ref _questions);
            }
        }

        /// <summary>Clients that are killed: their sockets close or reset with bytes on their way.</summary>
        void BreakOff(Random chance)
        {
            using Socket socket = bed.Host.Connect(8080);
            socket.Blocking = false;
            byte[] much = new byte[chance.Next(1, 1 << 20)];
            _ = socket.Send(much, SocketFlags.None, out SocketError _);
            Thread.Sleep(chance.Next(10));
            if (chance.Next(2) == 0)
                socket.Reset();
            Interlocked.Increment(ref _broken);
        }

        /// <summary>Other ports come and go, beside those that stay; half of the changes are taken back.</summary>
        void Change(Random chance)
        {
            using ControlClient client = ControlClient.Applied(control, Tables(chance));
            bool rollback = chance.Next(2) == 0;
            client.Send(rollback ? ControlClient.RollbackMessage : ControlClient.CommitMessage);
            Assert.Equal(rollback ? DoneStatus.RolledBack : DoneStatus.Committed, client.ReadDone());
            Interlocked.Increment(ref rollback ? ref _rollbacks : ref _changes);
        }

        /// <summary>A client that hangs up at any point of its update, which is a whole one of version 2 in some cases.</summary>
        void AbandonChange(Random chance)
        {
            using ControlClient client = ControlClient.Greeted(control);
            byte[] update = chance.Next(2) == 0
                ? Tables(chance).Update()
                : [.. ControlClient.Hello, .. ControlClient.TablesMessage(Tables(chance)), .. ControlClient.ApplyMessage()];
            client.Send(update[..chance.Next(update.Length + 1)]);
            Thread.Sleep(chance.Next(5));
        }

        /// <summary>The rules that are there all the time, and others.</summary>
        public static ServerTables Stays(params string[] others)
        {
            Rule datagrams = ServerTables.Rule("5353:53");
            datagrams.Protocol = IpProtocol.Udp;
            return new ServerTables().With(Pif.Host, [.. ServerTables.Rules(["8080:80", .. others]), datagrams]);
        }

        static ServerTables Tables(Random chance)
        {
            int first = chance.Next(9000, 9900);
            return Stays($"{first}-{first + chance.Next(100)}");
        }

        public override string ToString() =>
            $"{_bytes >> 20} MB streamed and compared, {_connections} connections, {_broken} broken off, {_questions} datagrams answered, {_unanswered} not, {_changes} changes, {_rollbacks} rollbacks; {(_problems.Length == 0 ? "no byte corrupted, nobody refused or reset" : "PROBLEMS")}";
    }
}
