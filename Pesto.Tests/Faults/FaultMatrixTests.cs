using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using Mono.Unix.Native;
using Pesto.Protocol;
using Pesto.Rules;
using Pesto.Tests.Harness;
using Errno = Pesto.Linux.Errno;

namespace Pesto.Tests.Faults;

/// <summary>
/// Each call that the forwarder makes fails with each error that it plausibly has, the first time, a later time and for a while; the
/// forwarder lives, others notice nothing, everything works afterwards, and no descriptor is lost.
/// </summary>
public sealed class FaultMatrixTests(ITestOutputHelper output)
{
    const int Patience = 250, Slack = 12;
    const Errno Eio = (Errno)5, Ebusy = (Errno)16;

    static readonly TimeSpan Recovery = TimeSpan.FromSeconds(8);

    static readonly byte[] Bulk = [.. Enumerable.Range(0, 2_000_000).Select(i => (byte)(i * 31 >> 3))];

    static readonly (int After, int Times)[] Moments = [(0, 1), (2, 1), (0, 1000)];

    /// <summary>
    /// EAGAIN is missing where the forwarder relies on an event of edge-triggered epoll to follow: the kernel says it only if one does, and
    /// all traffic is full of it anyway.
    /// </summary>
    static readonly (string Function, Errno[] Errors)[] Matrix =
    [
        ("socket", [Errno.EMFILE, Errno.ENFILE, Errno.ENOBUFS, Errno.ENOMEM, Errno.EAFNOSUPPORT]),
        ("bind", [Errno.EADDRINUSE, Errno.EADDRNOTAVAIL, Errno.EACCES, Errno.ENOMEM]),
        ("listen", [Errno.EADDRINUSE, Errno.ENOMEM]),
        ("accept4", [Errno.EINTR, Errno.ECONNABORTED, Errno.EMFILE, Errno.ENFILE, Errno.ENOBUFS, Errno.ENOMEM, Errno.EPERM, Errno.EPROTO]),
        ("connect", [Errno.ECONNREFUSED, Errno.ENETUNREACH, Errno.EHOSTUNREACH, Errno.ETIMEDOUT, Errno.EADDRNOTAVAIL, Errno.ENOBUFS, Errno.EACCES, Errno.EPERM]),
        ("shutdown", [Errno.ENOTCONN]),
        ("setsockopt", [Errno.ENOPROTOOPT, Errno.ENOMEM, Errno.ENOBUFS, Errno.EPERM]),
        ("getsockopt", [Errno.ENOBUFS, Errno.EINVAL]),
        ("recv", [Errno.EINTR, Errno.ECONNRESET, Errno.ETIMEDOUT, Errno.EHOSTUNREACH, Errno.ENOMEM]),
        ("send", [Errno.EINTR, Errno.EPIPE, Errno.ECONNRESET, Errno.ENOBUFS, Errno.ENOMEM, Errno.ETIMEDOUT]),
        ("recvmmsg", [Errno.EINTR, Errno.EAGAIN, Errno.ENOMEM, Errno.ENOBUFS, Errno.ECONNREFUSED]),
        ("sendmmsg", [Errno.EINTR, Errno.EAGAIN, Errno.ENOBUFS, Errno.ENOMEM, Errno.ECONNREFUSED, Errno.EMSGSIZE, Errno.EPERM, Errno.ENETUNREACH]),
        ("pipe2", [Errno.EMFILE, Errno.ENFILE, Errno.ENOMEM]),
        ("splice", [Errno.EINTR, Errno.ENOMEM, Errno.EPIPE, Errno.ECONNRESET, Errno.ETIMEDOUT]),
        ("fcntl", [Errno.EPERM, Ebusy, Errno.ENOMEM]),
        ("epoll_ctl", [Errno.ENOMEM, Errno.ENOSPC]),
        ("epoll_wait", [Errno.EINTR]),
        ("close", [Errno.EINTR, Eio]),
        ("read", [Errno.EINTR]),
        ("write", [Errno.EINTR, Errno.ENOSPC, Eio, Errno.EPIPE]),
    ];

    [Fact]
    public void Whatever_fails_it_lives_and_others_notice_nothing_and_nothing_is_lost()
    {
        using World world = new();
        world.Work();
        world.MustWork();
        int before = world.Descriptors;
        StringBuilder table = new();
        int tried = 0, reached = 0;
        List<string> problems = [];
        Stopwatch watch = Stopwatch.StartNew();
        foreach ((string function, Errno[] errors) in Matrix)
        {
            if (world.IsBroken)
                break;

            int hits = 0;
            foreach (Errno error in errors)
            {
                table.Append($"{function,-12} {error,-16}");
                foreach ((int after, int times) in Moments)
                {
                    int failed = world.WorkUnder(function, after, times, error);
                    string what = $"{function} failing with {error} after {after} calls, {times} times";
                    if (world.WhatIsWrong() is string wrong)
                        problems.Add($"{what}: {wrong}");
                    table.Append($" {failed,6}");
                    tried++;
                    reached += failed > 0 ? 1 : 0;
                    hits += failed;
                }

                if (world.LostDescriptors(before) is int lost and > 0)
                {
                    problems.Add($"{function} failing with {error} loses {lost} descriptors");
                    before += lost;
                }

                table.Append('\n');
            }

            if (hits == 0)
                problems.Add($"{function} is never called");
        }

        output.WriteLine($"{"call",-12} {"error",-16} {string.Join(' ', Moments.Select(m => $"{m.After,3}/{m.Times}"))}  (calls that failed: after so many, so many times)\n{table}");
        output.WriteLine($"{tried} cases in {watch.Elapsed.TotalSeconds:F0} s, {reached} of them reached; descriptors {before} before, {world.Descriptors} after");
        Assert.True(problems.Count == 0, string.Join('\n', problems));
    }

    /// <summary>A forwarder with somebody who is not to notice anything, and work that may fail.</summary>
    sealed class World : IDisposable
    {
        static readonly ServerTables Usual = Tables("8080:80"), Other = Tables("8080:80", "9000-9009");

        readonly Testbed _bed = new() { Program = Programs.Checked };
        readonly Preload _preload = new();
        readonly TcpService _echo;
        readonly UdpEcho _datagrams;
        readonly RunningForwarder _pesto;
        readonly ExchangeLoop _bystander;
        readonly Socket _udp;
        readonly int _lowest;

        public World()
        {
            _echo = TcpService.Echo(_bed.Container, 80);
            _datagrams = new UdpEcho(_bed.Container, 53);
            _pesto = _bed.ServeBehind(
                _preload.Before, "-t", "8080:80", "-u", "5353:53", "--conf-timeout", "1", "--connect-timeout", "1", "--udp-timeout", "2", "--udp-stream-timeout", "2");
            // The first flow has the lowest descriptors: what fails, fails above.
            _bystander = new ExchangeLoop(_bed.Host.Connect(8080));
            _bystander.WaitForMore(10);
            _lowest = 1 + Directory.GetFileSystemEntries($"/proc/{_pesto.Process.Id}/fd").Select(fd => int.Parse(Path.GetFileName(fd))).Where(fd => fd < 200).Max();
            _udp = _bed.Host.ConnectUdp(5353);
            _udp.ReceiveTimeout = Patience;
        }

        /// <summary>All but those of pipes that are kept at hand: of these there are as many as were in use at the same time ever.</summary>
        public int Descriptors => _pesto.Process.Descriptors - (2 * (int)_pesto.Statistic("pipes"));

        /// <summary>How many more there are than before, once what takes its time is over.</summary>
        public int LostDescriptors(int before)
        {
            for (Stopwatch watch = Stopwatch.StartNew(); Descriptors > before + Slack && watch.Elapsed < Recovery;)
                Thread.Sleep(10);
            return Descriptors <= before + Slack ? 0 : Descriptors - before;
        }

        static ServerTables Tables(params string[] ports) =>
            new ServerTables().With(Pif.Host, [.. ServerTables.Rules(ports), Datagrams]);

        static Rule Datagrams
        {
            get
            {
                Rule rule = ServerTables.Rule("5353:53");
                rule.Protocol = IpProtocol.Udp;
                return rule;
            }
        }

        public int WorkUnder(string function, int after, int times, Errno error)
        {
            _preload.Fail(function, after, times, error, _lowest);
            Work();
            return _preload.Stop();
        }

        /// <summary>All that a forwarder does; any of it may fail.</summary>
        public void Work()
        {
            _pesto.Process.Signal(Signum.SIGUSR1);
            Task[] all =
            [
                // Who does not read at once has pipes fill, and more of them made.
                .. Enumerable.Range(0, 3).Select(_ => Task.Run(() => Tolerate(() => Exchange(Bulk, Patience, pause: 30)))),
                Task.Run(() => Tolerate(Abandon)),
                Task.Run(() => Tolerate(() => Exchange("ping"u8.ToArray(), Patience))),
                Task.Run(() => Tolerate(Datagram)),
                Task.Run(() => Tolerate(() => Replace(_pesto.Control, Other, Patience))),
            ];
            Task.WaitAll(all);
            Tolerate(() => Replace(_pesto.Control, Usual, Patience));
        }

        /// <summary>Nothing that comes after can tell anything.</summary>
        public bool IsBroken { get; private set; }

        public string? WhatIsWrong()
        {
            try
            {
                Assert.False(_pesto.Process.HasEnded, $"it ended: {_pesto.Process.Errors}");
                MustWork();
                _bystander.WaitForMore(5);
                return null;
            }
            catch (Exception e)
            {
                IsBroken = true;
                return $"{e.Message}\n{_pesto.Process.Errors[^Math.Min(2000, _pesto.Process.Errors.Length)..]}";
            }
        }

        /// <summary>All works again, soon.</summary>
        public void MustWork()
        {
            Soon("connections are served", () => Exchange("ping"u8.ToArray(), 2000));
            Soon("much is carried", () => Exchange(Bulk, 5000));
            Soon("datagrams are carried", Datagram);
            Soon("tables can be changed", () => Replace(_pesto.Control, Usual, 3000));
        }

        void Soon(string what, Action action)
        {
            string why = "";
            Stopwatch watch = Stopwatch.StartNew();
            while (!Succeeds(action, ref why))
                Assert.True(watch.Elapsed < Recovery && !_pesto.Process.HasEnded, $"{what} no more: {why}");
        }

        void Exchange(byte[] bytes, int timeout, int pause = 0)
        {
            using Socket socket = _bed.Host.Connect(8080);
            socket.SendTimeout = socket.ReceiveTimeout = timeout;
            byte[] back = new byte[bytes.Length];
            Task<int> sender = Task.Run(() =>
            {
                int sent = 0;
                while (sent < bytes.Length)
                    sent += socket.Send(bytes.AsSpan(sent));
                return sent;
            });
            try
            {
                Thread.Sleep(pause);
                Assert.True(bytes.AsSpan().SequenceEqual(socket.ReadExactly(bytes.Length)), "other bytes came back");
            }
            finally
            {
                socket.Dispose();
                Tolerate(() => sender.Wait());
            }
        }

        /// <summary>Sends more than is taken, reads nothing and resets: pipes that are full go with it, and others have to be made.</summary>
        void Abandon()
        {
            using Socket socket = _bed.Host.Connect(8080);
            socket.SendTimeout = 30;
            try
            {
                while (true)
                    socket.Send(Bulk);
            }
            catch (SocketException)
            {
                socket.Reset();
            }
        }

        void Datagram()
        {
            byte[] question = Guid.NewGuid().ToByteArray(), answer = new byte[64];
            _udp.Send(question);
            while (true)
            {
                int length = _udp.Receive(answer);
                // An answer to a question before may be late.
                if (answer.AsSpan(0, length).SequenceEqual(question))
                    return;
            }
        }

        static void Replace(string path, ServerTables tables, int timeout)
        {
            using ControlClient client = new(path);
            client.Socket.SendTimeout = client.Socket.ReceiveTimeout = timeout;
            client.ReadListing();
            client.Send(ControlClient.Hello);
            client.Send(ControlClient.TablesMessage(tables));
            Assert.Equal("", client.ReadVerdict().Text);
            client.Send(ControlClient.ApplyMessage());
            uint failures = client.ReadOutcome().Failures;
            client.Send(failures == 0 ? ControlClient.CommitMessage : ControlClient.RollbackMessage);
            client.ReadDone();
            Assert.Equal(0u, failures);
        }

        static void Tolerate(Action action)
        {
            string why = "";
            _ = Succeeds(action, ref why);
        }

        static bool Succeeds(Action action, ref string why)
        {
            try
            {
                action();
                return true;
            }
            catch (Exception e)
            {
                why = e.Message;
                return false;
            }
        }

        public void Dispose()
        {
            _udp.Dispose();
            _bystander.Dispose();
            _pesto.Dispose();
            _echo.Dispose();
            _datagrams.Dispose();
            _preload.Dispose();
            _bed.Dispose();
        }
    }
}
