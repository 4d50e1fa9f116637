using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Mono.Unix.Native;
using Pesto.Linux;
using Pesto.Protocol;
using Pesto.Rules;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Control;

/// <summary>What becomes of connections when the socket that they come to is not wanted any more, or another one that overlaps it is.</summary>
public sealed class HandoverTests
{
    /// <summary>More than a listening socket is served of at a time.</summary>
    const int Many = 200;

    [Fact]
    public void A_rollback_serves_what_connected_to_a_removed_rule_meanwhile()
    {
        using Testbed bed = new();
        using TcpService echo = TcpService.Echo(bed.Container, 80);
        using RunningForwarder pesto = bed.Serve("-t", "80");
        using ControlClient client = ControlClient.Applied(pesto.Control, ServerTables.Tcp());
        Socket[] connected = Connect(bed.Host);
        Assert.Equal(0, echo.Accepted);
        client.Send(ControlClient.RollbackMessage);
        Assert.Equal(DoneStatus.RolledBack, client.ReadDone());
        AllAreServed(connected);
        Assert.True(bed.Host.Accepts(80));
    }

    [Fact]
    public void A_commit_serves_what_connected_to_a_removed_rule_meanwhile()
    {
        using Testbed bed = new();
        using TcpService echo = TcpService.Echo(bed.Container, 80);
        using RunningForwarder pesto = bed.Serve("-t", "80");
        using ControlClient client = ControlClient.Applied(pesto.Control, ServerTables.Tcp());
        Socket[] connected = Connect(bed.Host);
        client.Send(ControlClient.CommitMessage);
        Assert.Equal(DoneStatus.Committed, client.ReadDone());
        AllAreServed(connected);
        Assert.False(bed.Host.Accepts(80));
    }

    [Fact]
    public void A_rollback_serves_what_connected_to_an_added_rule_meanwhile()
    {
        using Testbed bed = new();
        using TcpService echo = TcpService.Echo(bed.Container, 80);
        using RunningForwarder pesto = bed.Serve();
        using ControlClient client = ControlClient.Applied(pesto.Control, ServerTables.Tcp("80"));
        pesto.Process.Signal(Signum.SIGSTOP);
        Socket[] connected = Connect(bed.Host);
        client.Send(ControlClient.RollbackMessage);
        pesto.Process.Signal(Signum.SIGCONT);
        Assert.Equal(DoneStatus.RolledBack, client.ReadDone());
        AllAreServed(connected);
        Assert.False(bed.Host.Accepts(80));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void An_update_that_removes_a_rule_resets_nothing_that_the_kernel_has_accepted(bool version2)
    {
        using Testbed bed = new();
        using TcpService echo = TcpService.Echo(bed.Container, 80);
        using RunningForwarder pesto = bed.Serve("-t", "80");
        using ControlClient client = ControlClient.Greeted(pesto.Control);
        pesto.Process.Signal(Signum.SIGSTOP);
        Socket[] connected = Connect(bed.Host);
        ServerTables nothing = ServerTables.Tcp();
        client.Send(version2
            ? nothing.Update()
            : [.. ControlClient.Hello, .. ControlClient.TablesMessage(nothing), .. ControlClient.ApplyMessage(), .. ControlClient.CommitMessage]);
        pesto.Process.Signal(Signum.SIGCONT);
        if (version2)
            client.ReadEnd();
        else
            Assert.Equal((VerdictStatus.Valid, 0u, DoneStatus.Committed), (client.ReadVerdict().Status, client.ReadOutcome().Failures, client.ReadDone()));
        AllAreServed(connected);
        Assert.False(bed.Host.Accepts(80));
    }

    [Fact]
    public void A_rule_is_removed_wherever_it_listens()
    {
        using Testbed bed = new();
        string path = bed.Folder["other"];
        using RunningForwarder host = new(bed, path, bed.Pesto("serve", "-f", "-c", path, "-t", "127.0.0.1/80:81").Start()), pesto = bed.Serve("-T", "90");
        using TcpService echo = TcpService.Echo(bed.Host, 81), another = TcpService.Echo(bed.Host, 90);
        foreach ((string control, NetworkNamespace where, int port) in new[] { (host.Control, bed.Host, 80), (pesto.Control, bed.Container, 90) })
        {
            using (Socket served = where.Connect(port))
                Assert.Equal("ping", served.Exchange("ping"));
            ControlClient.Replace(control, ServerTables.Tcp());
            Assert.False(where.Accepts(port));
            Assert.Empty(ControlClient.Tables(control).Of(Pif.Splice));
        }
    }

    /// <summary>Between two machines a handshake takes time, and a client takes itself for connected when the server does not yet.</summary>
    [Theory]
    [InlineData("")]
    [InlineData("10.1.0.2/80")]
    public void A_handshake_that_is_under_way_when_its_socket_is_closed_comes_to_a_good_end(string next)
    {
        using Testbed bed = new();
        using NetworkNamespace away = NetworkNamespace.Create();
        away.Link(bed.Host, ["10.1.0.1/24"], ["10.1.0.2/24"]);
        using TcpService echo = TcpService.Echo(bed.Container, 80);
        using RunningForwarder pesto = bed.Serve("-t", "0.0.0.0/80");

        string device = LoseAnswers(bed.Host);
        using Socket connected = BeginHandshake(away, bed.Host, 80);
        using ControlClient client = ControlClient.Applied(pesto.Control, next == "" ? ServerTables.Tcp() : ServerTables.Tcp(next));
        client.Send(ControlClient.CommitMessage);
        new Command("ip", "-n", bed.Host.Name!, "neighbor", "delete", "10.1.0.1", "dev", device).RunOrFail();
        Assert.Equal(DoneStatus.Committed, client.ReadDone());
        connected.Blocking = true;
        Assert.Equal("ping", connected.Exchange("ping"));
    }

    [Fact]
    public void A_rollback_serves_the_old_rules_at_once_whatever_handshakes_there_are_with_the_new()
    {
        using Testbed bed = new();
        using NetworkNamespace away = NetworkNamespace.Create();
        away.Link(bed.Host, ["10.1.0.1/24"], ["10.1.0.2/24"]);
        using TcpService echo = TcpService.Echo(bed.Container, 80);
        using RunningForwarder pesto = bed.Serve("-t", "127.0.0.1/80");
        using ControlClient client = ControlClient.Applied(pesto.Control, ServerTables.Tcp("0.0.0.0/81"));
        using Socket parked = bed.Host.Connect(80);
        LoseAnswers(bed.Host);
        using Socket handshake = BeginHandshake(away, bed.Host, 81);
        Stopwatch since = Stopwatch.StartNew();
        client.Send(ControlClient.RollbackMessage);
        Assert.Equal("ping", parked.Exchange("ping"));
        Assert.InRange(since.ElapsedMilliseconds, 0, 1500);
        Assert.Equal(DoneStatus.RolledBack, client.ReadDone());
    }

    /// <summary>Has a host's answers to 10.1.0.1 get lost until the neighbour is deleted, since it has a wrong idea of where they go; gives the device.</summary>
    static string LoseAnswers(NetworkNamespace host)
    {
        string device = new Command("ip", "-n", host.Name!, "-brief", "link", "show", "type", "veth").RunOrFail().Split('@', ' ')[0];
        new Command("ip", "-n", host.Name!, "neighbor", "replace", "10.1.0.1", "lladdr", "02:00:00:00:00:99", "dev", device).RunOrFail();
        return device;
    }

    /// <summary>Begins to connect to 10.1.0.2, and waits until its host knows.</summary>
    static Socket BeginHandshake(NetworkNamespace from, NetworkNamespace host, int to)
    {
        Socket connecting = from.NewSocket(AddressFamily.InterNetwork, SocketType.Stream);
        connecting.Blocking = false;
        Assert.Throws<SocketException>(() => connecting.Connect(new IPEndPoint(IPAddress.Parse("10.1.0.2"), to)));
        host.Run(() =>
        {
            HalfOpenConnections connections = new();
            Eventually.True(() => HalfOpenAt(connections).Contains((ushort)to), "a handshake is under way");
            return true;
        });
        return connecting;
    }

    static List<ushort> HalfOpenAt(HalfOpenConnections connections)
    {
        List<ushort> ports = [];
        connections.Begin();
        while (connections.Next(out ushort port) is { Ok: true, Value: > 0 } or { Error: Pesto.Linux.Errno.EAGAIN })
            ports.Add(port);
        return ports;
    }

    /// <summary>Two rules that overlap, so that no table has both; and whether ::1 is served by both.</summary>
    public static TheoryData<string, string, bool, string> Overlaps
    {
        get
        {
            TheoryData<string, string, bool, string> all = [];
            foreach (string user in new[] { "root", "ordinary" })
            {
                all.Add("0.0.0.0/8080", "127.0.0.1/8080", false, user);
                all.Add("8080", "0.0.0.0/8080", false, user);
                all.Add("8080", "127.0.0.1/8080", false, user);
                all.Add("::/8080", "::1/8080", true, user);
                all.Add("%lo/8080", "8080", false, user);
                all.Add("127.0.0.1%lo/8080", "127.0.0.1/8080", false, user);
                all.Add("127.0.0.1%lo/8080", "0.0.0.0/8080", false, user);
            }

            all.Add("0.0.0.0/8080", "127.0.0.1/8080", false, "nobody");
            all.Add("%lo/8080", "8080", false, "nobody");
            return all;
        }
    }

    [Theory]
    [MemberData(nameof(Overlaps))]
    public void A_change_between_rules_that_overlap_refuses_and_resets_nobody(string one, string other, bool v6, string user)
    {
        if (user == "ordinary")
            Account.NeedOrdinary();
        using Testbed bed = new(user == "ordinary" ? Account.Ordinary : null);
        IPAddress loopback = v6 ? IPAddress.IPv6Loopback : IPAddress.Loopback;
        using TcpService echo = TcpService.Echo(bed.Container, new IPEndPoint(loopback, 8080));
        using RunningForwarder pesto = bed.Serve(["-t", one, .. SameUser(user == "root")]);
        using ConnectLoop load = new(bed.Host, new IPEndPoint(loopback, 8080)), more = new(bed.Host, new IPEndPoint(loopback, 8080));
        load.WaitForMore(10);
        ServerTables first = ServerTables.Tcp(one), second = ServerTables.Tcp(other);
        for (int i = 0; i < 200; i++)
        {
            ControlClient.Replace(pesto.Control, second);
            if (user == "root" && i == 0)
                NobodyCanJoin(bed.Host, second);
            ControlClient.Replace(pesto.Control, first);
        }

        if (user == "root")
            NobodyCanJoin(bed.Host, first);
        load.WaitForMore(10);
        more.Stop();
        load.Stop();
        Assert.Equal("", load.Failures + more.Failures);
    }

    [Fact]
    public void Rolling_an_overlap_back_refuses_nobody_and_leaves_the_port_to_nobody_else()
    {
        using Testbed bed = new();
        using TcpService echo = TcpService.Echo(bed.Container, 8080);
        using RunningForwarder pesto = bed.Serve(["-t", "0.0.0.0/8080", .. SameUser(true)]);
        using ConnectLoop load = new(bed.Host, 8080);
        load.WaitForMore(10);
        for (int i = 0; i < 50; i++)
        {
            using ControlClient client = ControlClient.Applied(pesto.Control, ServerTables.Tcp(i % 2 == 0 ? "127.0.0.1/8080" : "8080"));
            Assert.Equal(0u, client.Outcome.Failures);
            client.Send(ControlClient.RollbackMessage);
            Assert.Equal(DoneStatus.RolledBack, client.ReadDone());
            NobodyCanJoin(bed.Host, ServerTables.Tcp("0.0.0.0/8080"));
        }

        load.WaitForMore(10);
        load.Stop();
        Assert.Equal("", load.Failures);
    }

    [Fact]
    public void Who_comes_to_an_address_that_the_new_rule_does_not_have_never_gets_in_by_it()
    {
        using Testbed bed = new();
        using NetworkNamespace away = NetworkNamespace.Create();
        away.Link(bed.Host, ["10.1.0.1/24"], ["10.1.0.2/24"]);
        using TcpService open = TcpService.Says(bed.Container, 81, "open"), secret = TcpService.Says(bed.Container, 82, "secret");
        using RunningForwarder pesto = bed.Serve("-t", "0.0.0.0/8080:81");
        using ControlClient client = ControlClient.Applied(pesto.Control, ServerTables.Tcp("127.0.0.1/8080:82"));
        Assert.Equal(0u, client.Outcome.Failures);
        using Socket stranger = away.Connect(new IPEndPoint(IPAddress.Parse("10.1.0.2"), 8080)), local = bed.Host.Connect(8080);
        Assert.Equal("secret", local.ReadToEnd());
        client.Send(ControlClient.CommitMessage);
        Assert.Equal(DoneStatus.Committed, client.ReadDone());
        Assert.Equal("open", stranger.ReadToEnd());
        Assert.Equal(1, secret.Accepted);
    }

    [Fact]
    public void A_socket_that_gets_the_new_rules_connections_serves_them_until_it_is_closed()
    {
        using Testbed bed = new();
        using TcpService before = TcpService.Says(bed.Container, 81, "before"), after = TcpService.Says(bed.Container, 82, "after");
        using RunningForwarder pesto = bed.Serve("-t", "127.0.0.1/8080:81");
        using ControlClient client = ControlClient.Applied(pesto.Control, ServerTables.Tcp("0.0.0.0/8080:82"));
        using (Socket one = bed.Host.Connect(8080))
            Assert.Equal("after", one.ReadToEnd());
        client.Send(ControlClient.RollbackMessage);
        Assert.Equal(DoneStatus.RolledBack, client.ReadDone());
        using Socket another = bed.Host.Connect(8080);
        Assert.Equal("before", another.ReadToEnd());
    }

    /// <summary>The forwarder stays root, who runs the tests, where it would become "nobody": only sockets of one user can share a port at all.</summary>
    static string[] SameUser(bool wanted) => wanted ? ["--no-sandbox"] : [];

    static Socket[] Connect(NetworkNamespace from) => [.. Enumerable.Range(0, Many).Select(_ => from.Connect(80))];

    static void AllAreServed(Socket[] connected)
    {
        foreach (Socket one in connected)
        {
            Assert.Equal("ping", one.Exchange("ping"));
            one.Reset();
        }
    }

    /// <summary>No socket that would share the port gets it, though it is the same user's: as if there had been no handover.</summary>
    static void NobodyCanJoin(NetworkNamespace where, ServerTables tables)
    {
        Rule rule = tables.Of(Pif.Host).Single();
        // What README.md of Protocol says of dual-stack sockets.
        if (rule.IsDualStack)
            return;
        using Socket socket = where.NewSocket(rule.Address.IsV4 ? AddressFamily.InterNetwork : AddressFamily.InterNetworkV6, SocketType.Stream);
        int fd = (int)socket.Handle;
        Assert.True(Sockets.SetReuseAddress(fd, true).Ok && Sockets.SetReusePort(fd, true).Ok);
        Pesto.Linux.SocketAddress address = Pesto.Linux.SocketAddress.Of(rule.Address, rule.First);
        Assert.Equal(Pesto.Linux.Errno.EADDRINUSE, Sockets.Bind(fd, in address).Error);
    }
}
