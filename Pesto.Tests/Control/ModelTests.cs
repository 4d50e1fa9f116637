using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Mono.Unix.Native;
using Pesto.Linux;
using Pesto.Protocol;
using Pesto.Rules;
using Pesto.Tests.Faults;
using Pesto.Tests.Harness;
using Errno = Pesto.Linux.Errno;

namespace Pesto.Tests.Control;

/// <summary>
/// Random tables and random transactions, ended in every way there is, against a model that fits on a page. After each, the
/// forwarder's table and its listening sockets must be exactly the model's. PESTO_SEED repeats a run, PESTO_STEPS makes it longer.
/// </summary>
public sealed class ModelTests(ITestOutputHelper output)
{
    const int DefaultSteps = 2000;
    const int CommonPort = 7777;
    const int PortsAtPlay = 24;
    const int FirstPort = 5000;

    /// <summary>How long the forwarder waits for a client that stalls, in seconds of its own clock.</summary>
    const int Patience = 2;

    static readonly string[] Addresses = ["", "0.0.0.0/", "127.0.0.1/", "127.0.0.2/", "::/", "::1/", "%lo/", "127.0.0.1%lo/"];

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Random_transactions_leave_exactly_the_tables_and_sockets_that_the_model_says(bool sandbox)
    {
        int seed = Setting("PESTO_SEED", Environment.TickCount & 0xffffff);
        int steps = Setting("PESTO_STEPS", DefaultSteps);
        output.WriteLine($"PESTO_SEED={seed} PESTO_STEPS={steps}");
        using Testbed bed = new() { Program = Programs.Checked };
        using TcpService echo = TcpService.Echo(bed.Container, CommonPort);
        // Without a sandbox it is the same user as the strangers, who could share a port only then.
        using Preload preload = new();
        using RunningForwarder pesto = bed.ServeBehind(
            preload.Before, [.. sandbox ? Array.Empty<string>() : ["--no-sandbox"], "-q", "-t", $"{CommonPort}", "--conf-timeout", $"{Patience}"]);
        Model model = new(seed, bed, pesto, preload);
        int sockets = model.CountSocketsAtRest();
        using ConnectLoop load = new(bed.Host, CommonPort);
        load.WaitForMore(10);
        model.NoteDescriptors();
        for (int i = 0; i < steps; i++)
        {
            string what = $"PESTO_SEED={seed}, step {i}";
            try
            {
                what += $": {model.Step()}";
                model.Check();
                Assert.Equal("", load.Failures);
            }
            catch (Exception e)
            {
                throw new InvalidOperationException($"{what}: {e.Message}\n{pesto.Process.Errors}", e);
            }
        }

        load.WaitForMore(10);
        load.Stop();
        Assert.Equal("", load.Failures);
        Eventually.Equal(sockets, model.CountSocketsAtRest);
        output.WriteLine($"{steps} transactions ({model.Summary}), {load.Made} connections to the common rule");
        model.Dispose();
    }

    static int Setting(string name, int otherwise) =>
        Environment.GetEnvironmentVariable(name) is string text ? int.Parse(text, CultureInfo.InvariantCulture) : otherwise;

    /// <summary>What must be there, and who changes it.</summary>
    sealed class Model(int seed, Testbed bed, RunningForwarder pesto, Preload preload) : IDisposable
    {
        readonly Random _random = new(seed);

        /// <summary>Sockets of others, which take ports away: of the wildcard address, so that they are in the way of all rules of their port.</summary>
        readonly Dictionary<int, Socket> _strangers = [];
        readonly SortedDictionary<string, int> _ends = [];

        /// <summary>The table in force.</summary>
        ServerTables _tables = Common();

        /// <summary>Its sockets: those of its rules but the ones that could not be had.</summary>
        HashSet<ListeningSocket> _sockets = [.. Wanted(ServerTables.Rule($"{CommonPort}"))];
        int _descriptors;

        public string Summary => string.Join(", ", _ends.Select(end => $"{end.Value} {end.Key}"));

        static ServerTables Common() => ServerTables.Tcp($"{CommonPort}");

        static IEnumerable<ListeningSocket> Wanted(Rule rule)
        {
            for (int port = rule.First; port <= rule.Last; port++)
                yield return new(rule.Address, rule.IsDualStack, rule.Interface.IsEmpty ? 0 : 1, (ushort)port, 0);
        }

        /// <summary>All sockets that the forwarder has with the common rule alone, after an update that closed others.</summary>
        public int CountSocketsAtRest()
        {
            ControlClient.Replace(pesto.Control, ServerTables.Tcp($"{CommonPort}", "127.0.0.1/1"));
            ControlClient.Replace(pesto.Control, Common());
            using ControlClient only = ControlClient.Greeted(pesto.Control);
            return new DirectoryInfo($"/proc/{pesto.Process.Id}/fd").EnumerateFiles().Count(descriptor => descriptor.LinkTarget?.StartsWith("socket:") == true);
        }

        /// <summary>What the forwarder has open with the common rule alone, beyond flows, which come and go.</summary>
        public void NoteDescriptors()
        {
            using ControlClient only = ControlClient.Greeted(pesto.Control);
            _descriptors = CountSteadyDescriptors() - 1;
        }

        // Sockets of flows and pipes come and go with the load; everything else is counted, listening sockets separately.
        int CountSteadyDescriptors()
        {
            int others = 0;
            foreach (FileInfo descriptor in new DirectoryInfo($"/proc/{pesto.Process.Id}/fd").EnumerateFiles())
            {
                string target = descriptor.LinkTarget ?? "";
                others += target.StartsWith("socket:") || target.StartsWith("pipe:") || target.Length == 0 ? 0 : 1;
            }

            return others + ListeningSocket.Of(pesto.Process, bed.Host).Count;
        }

        public void Check()
        {
            using ControlClient client = ControlClient.Greeted(pesto.Control);
            Assert.Equal(_tables, ServerTables.Of(client.State!));
            HashSet<ListeningSocket> there = [.. ListeningSocket.Of(pesto.Process, bed.Host).Select(socket => socket with { Inode = 0 })];
            Assert.Equal([], there.Except(_sockets));
            Assert.Equal([], _sockets.Except(there));
            Assert.Equal(_descriptors + _sockets.Count, CountSteadyDescriptors());
        }

        public string Step()
        {
            ChangeStrangers();
            ServerTables next = RandomTables();
            (string name, Func<ServerTables, bool> end) = _random.Next(20) switch
            {
                < 8 => ("commit", Commit),
                < 11 => ("rollback", RollBack),
                < 14 => ("version 2", Replace),
                < 17 => ("hang-up", HangUp),
                17 => ("protocol error", Err),
                18 => _random.Next(20) == 0 ? ("stall", Stall) : ("commit", Commit),
                _ => _random.Next(4) == 0 ? ("kill", Kill) : ("invalid", (Func<ServerTables, bool>)SendInvalid),
            };
            HashSet<ListeningSocket> expected = SocketsOf(next);
            if (end(next))
            {
                _tables = next;
                _sockets = expected;
            }

            _ends[name] = _ends.GetValueOrDefault(name) + 1;
            return $"{name} {next}";
        }

        /// <summary>A socket that a new rule wants is had unless a stranger is in its way; what is there already stays, since nothing that listens loses its port.</summary>
        HashSet<ListeningSocket> SocketsOf(ServerTables next) =>
            [.. next.Of(Pif.Host).SelectMany(Wanted).Where(socket => _sockets.Contains(socket) || !_strangers.ContainsKey(socket.Port))];

        ServerTables RandomTables()
        {
            List<Rule> rules = [];
            int wanted = _random.Next(8);
            for (int i = 0; i < wanted; i++)
            {
                int first = FirstPort + _random.Next(PortsAtPlay);
                int last = Math.Min(first + (_random.Next(3) == 0 ? _random.Next(6) : 0), FirstPort + PortsAtPlay - 1);
                Rule rule = ServerTables.Rule($"{Addresses[_random.Next(Addresses.Length)]}{first}-{last}");
                rule.To = (ushort)(first + _random.Next(100));
                if (_random.Next(4) == 0)
                    rule.Flags |= RuleFlags.Weak;
                if (!rules.Exists(other => RuleCheck.Conflict(in other, in rule)))
                    rules.Add(rule);
            }

            rules.Insert(_random.Next(rules.Count + 1), ServerTables.Rule($"{CommonPort}"));
            return ServerTables.Host([.. rules]);
        }

        /// <summary>Somebody else takes a port or gives it back. Ports that the forwarder listens on are not to be had.</summary>
        void ChangeStrangers()
        {
            if (_random.Next(3) != 0)
                return;
            int port = FirstPort + _random.Next(PortsAtPlay);
            if (_strangers.Remove(port, out Socket? there))
            {
                there.CloseForGood();
                return;
            }

            // Half of them ask to share, which they can't, but where both families' wildcards have the port (see Transaction).
            bool shares = _random.Next(2) == 0;
            List<ListeningSocket> ours = [.. _sockets.Where(one => one.Port == port)];
            if (shares && ours.Exists(one => one.Address == Address.AnyV4 || one.DualStack) && ours.Exists(one => one.Address.IsAny))
                return;
            Socket socket = bed.Host.NewSocket(AddressFamily.InterNetworkV6, SocketType.Stream);
            try
            {
                socket.DualMode = true;
                Assert.True(Sockets.SetReusePort((int)socket.Handle, shares).Ok);
                socket.Bind(new IPEndPoint(IPAddress.IPv6Any, port));
                socket.Listen();
                Assert.True(Sockets.SetReusePort((int)socket.Handle, false).Ok);
                Assert.Empty(ours);
                _strangers[port] = socket;
            }
            catch (SocketException)
            {
                socket.Dispose();
                Assert.NotEmpty(ours);
            }
        }

        uint FailuresOf(ServerTables next)
        {
            HashSet<ListeningSocket> had = SocketsOf(next);
            uint failures = 0;
            foreach (Rule rule in next.Of(Pif.Host))
            {
                int missing = Wanted(rule).Count(socket => !had.Contains(socket));
                failures += rule.IsWeak ? (missing == rule.Ports ? 1u : 0) : (uint)missing;
            }

            return failures;
        }

        ControlClient Apply(ServerTables next)
        {
            ControlClient client = ControlClient.Applied(pesto.Control, next, seconds: 60);
            Assert.Equal(FailuresOf(next), client.Outcome.Failures);
            Assert.All(client.Outcome.Named, entry => Assert.Equal(Errno.EADDRINUSE, entry.Error));
            return client;
        }

        bool Commit(ServerTables next)
        {
            using ControlClient client = Apply(next);
            client.Send(ControlClient.CommitMessage);
            Assert.Equal(DoneStatus.Committed, client.ReadDone());
            return true;
        }

        bool RollBack(ServerTables next)
        {
            using ControlClient client = Apply(next);
            client.Send(ControlClient.RollbackMessage);
            Assert.Equal(DoneStatus.RolledBack, client.ReadDone());
            return false;
        }

        bool Replace(ServerTables next)
        {
            using ControlClient client = ControlClient.Greeted(pesto.Control);
            client.Send(next.Update());
            client.ReadEnd();
            return true;
        }

        static byte[] WholeExchange(ServerTables next) =>
            [.. ControlClient.Hello, .. ControlClient.TablesMessage(next), .. ControlClient.ApplyMessage(), .. ControlClient.CommitMessage];

        bool HangUp(ServerTables next)
        {
            byte[] all = _random.Next(4) == 0 ? next.Update() : WholeExchange(next);
            int sent = _random.Next(all.Length + 1);
            using ControlClient client = _random.Next(5) == 0 ? new(pesto.Control) : ControlClient.Greeted(pesto.Control);
            client.Send(all.AsSpan(0, sent));
            return sent == all.Length;
        }

        bool Stall(ServerTables next)
        {
            byte[] all = WholeExchange(next);
            using ControlClient client = ControlClient.Greeted(pesto.Control);
            client.Send(all.AsSpan(0, _random.Next(all.Length)));
            // The next client has its turn when this one has been dropped.
            using ControlClient behind = new(pesto.Control);
            do
                preload.Pass(pesto.Process, Patience);
            while (!behind.Socket.Poll(100_000, SelectMode.SelectRead));
            return false;
        }

        bool Err(ServerTables next)
        {
            using ControlClient client = Apply(next);
            client.Send(ControlClient.Message((MessageType)9));
            Assert.Equal(DoneStatus.ProtocolError, client.ReadDone());
            return false;
        }

        bool SendInvalid(ServerTables next)
        {
            ServerTables invalid = ServerTables.Host([.. next.Of(Pif.Host), ServerTables.Rule($"{CommonPort}")]);
            using ControlClient client = ControlClient.Greeted(pesto.Control);
            client.Send([.. ControlClient.Hello, .. ControlClient.TablesMessage(invalid)]);
            Assert.Equal(VerdictStatus.Invalid, client.ReadVerdict().Status);
            return false;
        }

        /// <summary>A real client, in a process of its own, killed while it waits to be told to confirm.</summary>
        bool Kill(ServerTables next)
        {
            string rules = string.Join(' ', Enumerable.Range(FirstPort, PortsAtPlay).Where(port => !_strangers.ContainsKey(port)).Take(3).Select(port => $"-t 127.0.0.1/{port}"));
            using BackgroundProcess client = bed.Pesto(["--confirm", "60", "-t", $"{CommonPort}", .. rules.Split(' ', StringSplitOptions.RemoveEmptyEntries), pesto.Control]).Start();
            Thread.Sleep(_random.Next(8));
            client.Signal(Signum.SIGKILL);
            client.WaitForEnd(TimeSpan.FromSeconds(20));
            return false;
        }

        public void Dispose()
        {
            foreach (Socket socket in _strangers.Values)
                socket.Dispose();
        }
    }
}
