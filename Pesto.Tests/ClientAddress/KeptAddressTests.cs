using System.Net;
using System.Net.Sockets;
using Pesto.Tests.Harness;

namespace Pesto.Tests.ClientAddress;

/// <summary>A TCP server in the container sees the client's own address and port. (UDP has tests of its own.)</summary>
public sealed class KeptAddressTests
{
    public static readonly TheoryData<bool, bool, string, string> Servers = new(
        from ordinary in new[] { false, true }
        from bridged in new[] { false, true }
        from pair in new[]
        {
            ("127.0.0.1", Surroundings.HostV4), ("0.0.0.0", Surroundings.HostV4), ("::", Surroundings.HostV4), ("::1", Surroundings.HostV6), ("::", Surroundings.HostV6),
        }
        select (ordinary, bridged, pair.Item1, pair.Item2));

    [Theory]
    [MemberData(nameof(Servers))]
    public void It_sees_the_clients_own_address_and_port(bool ordinary, bool bridged, string server, string host)
    {
        if (ordinary)
            Account.NeedOrdinary();
        using Surroundings around = new(ordinary ? Account.Ordinary : null, bridged);
        using TcpService echo = TcpService.Echo(around.Container, new IPEndPoint(IPAddress.Parse(server), 80));
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80");
        using Socket client = around.Connect(host, 8080);
        Assert.Equal("question", client.Exchange("question"));
        Assert.Equal(client.Here(), echo.OnlyPeer());
        // What it prints last comes behind all that it has said.
        Assert.Equal(0, pesto.Statistic("address_refused"));
        Assert.DoesNotContain("can't be kept", pesto.Process.Errors);
    }

    [Theory]
    [InlineData("0.0.0.0/8080:80", Surroundings.HostV4)]
    [InlineData("[::]/8080:80", Surroundings.HostV6)]
    [InlineData("10.96.0.1/8080:80", Surroundings.HostV4)]
    public void So_it_is_for_ports_of_one_family(string port, string host)
    {
        using Surroundings around = new();
        using TcpService echo = TcpService.Echo(around.Container, new IPEndPoint(IPAddress.IPv6Any, 80));
        using RunningForwarder pesto = around.Bed.Serve("-t", port);
        using Socket client = around.Connect(host, 8080);
        Assert.Equal("question", client.Exchange("question"));
        Assert.Equal(client.Here(), echo.OnlyPeer());
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_port_below_1024_is_kept(bool ordinary)
    {
        if (ordinary)
            Account.NeedOrdinary();
        using Surroundings around = new(ordinary ? Account.Ordinary : null);
        using TcpService echo = TcpService.Echo(around.Container, new IPEndPoint(IPAddress.Any, 80));
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80");
        using Socket client = around.Connect(Surroundings.HostV4, 8080, from: 700);
        Assert.Equal("question", client.Exchange("question"));
        Assert.Equal(new IPEndPoint(IPAddress.Parse(Surroundings.ClientV4), 700), echo.OnlyPeer());
    }

    [Fact]
    public void A_link_local_address_is_kept()
    {
        using Surroundings around = new();
        using TcpService echo = TcpService.Echo(around.Container, new IPEndPoint(IPAddress.IPv6Any, 80));
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80");
        string device = new Command("ip", "-n", around.Outside.Name!, "-o", "link", "show", "type", "veth").RunOrFail().Split(": ")[1].Split('@')[0];
        new Command("ip", "-n", around.Outside.Name!, "address", "add", "fe80::22/64", "dev", device, "nodad").RunOrFail();
        string there = new Command("ip", "-n", around.Host.Name!, "-o", "route", "get", Surroundings.ClientV4).RunOrFail().Split(" dev ")[1].Split(' ')[0];
        new Command("ip", "-n", around.Host.Name!, "address", "add", "fe80::11/64", "dev", there, "nodad").RunOrFail();
        int scope = int.Parse(around.Outside.Run(() => File.ReadAllText("/proc/thread-self/net/if_inet6")).Split('\n').First(line => line.EndsWith($" {device}")).Split(' ')[1], System.Globalization.NumberStyles.HexNumber);
        using Socket client = around.Outside.NewSocket(AddressFamily.InterNetworkV6, SocketType.Stream);
        client.ReceiveTimeout = 20_000;
        client.Bind(new IPEndPoint(new IPAddress(IPAddress.Parse("fe80::22").GetAddressBytes(), scope), 0));
        client.Connect(new IPEndPoint(new IPAddress(IPAddress.Parse("fe80::11").GetAddressBytes(), scope), 8080));
        Assert.Equal("question", client.Exchange("question"));
        Assert.Equal(client.Here(), echo.OnlyPeer());
    }

    [Fact]
    public void A_client_with_the_hosts_own_address_has_that()
    {
        using Surroundings around = new();
        using TcpService echo = TcpService.Echo(around.Container, 80);
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80");
        using Socket client = Surroundings.Connect(around.Host, Surroundings.HostV4, 8080);
        Assert.Equal("question", client.Exchange("question"));
        Assert.Equal((Surroundings.HostV4, client.Here()), ($"{echo.OnlyPeer().Address}", echo.OnlyPeer()));
    }

    /// <summary>As pasta sets a container up: it has the host's address.</summary>
    [Theory]
    [InlineData(Surroundings.HostV4, "127.0.0.1")]
    [InlineData(Surroundings.HostV6, "::1")]
    public void A_client_with_one_of_the_containers_own_addresses_has_that(string shared, string server)
    {
        using Surroundings around = new();
        around.InContainer("address", "add", shared, "dev", "eth0");
        using TcpService echo = TcpService.Echo(around.Container, new IPEndPoint(IPAddress.Parse(server), 80));
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80");
        using Socket client = Surroundings.Connect(around.Host, shared, 8080);
        Assert.Equal("question", client.Exchange("question"));
        Assert.Equal(client.Here(), echo.OnlyPeer());
    }

    [Theory]
    [InlineData("127.0.0.1")]
    [InlineData("::1")]
    public void A_client_on_the_hosts_loopback_stays_on_loopback(string loopback)
    {
        using Surroundings around = new();
        using TcpService echo = TcpService.Echo(around.Container, new IPEndPoint(IPAddress.Parse(loopback), 80));
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80");
        using Socket client = Surroundings.Connect(around.Host, loopback, 8080);
        Assert.Equal("question", client.Exchange("question"));
        Assert.Equal(loopback, $"{echo.OnlyPeer().Address}");
    }

    [Fact]
    public void Several_clients_behind_one_address_are_told_apart_by_their_ports()
    {
        using Surroundings around = new();
        using TcpService echo = TcpService.Echo(around.Container, 80);
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80");
        Socket[] clients = [.. Enumerable.Range(0, 50).Select(_ => around.Connect(Surroundings.HostV4, 8080))];
        for (int i = 0; i < clients.Length; i++)
            Assert.Equal($"question {i:00}", clients[i].Exchange($"question {i:00}"));
        Assert.Equal(clients.Select(client => $"{client.Here()}").Order(), echo.Peers.Select(peer => $"{peer.Plain()}").Order());
        Array.ForEach(clients, client => client.Dispose());
    }

    [Fact]
    public void One_port_of_a_client_by_two_rules_to_one_target_gets_another_port_of_the_same_address_the_second_time()
    {
        using Surroundings around = new();
        using TcpService echo = TcpService.Echo(around.Container, 80);
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80", "-t", "9090:80");
        using Socket one = around.Connect(Surroundings.HostV4, 8080, from: 5000), other = around.Connect(Surroundings.HostV4, 9090, from: 5000);
        Assert.Equal("first", one.Exchange("first"));
        Assert.Equal("second", other.Exchange("second"));
        Assert.Equal([Surroundings.ClientV4, Surroundings.ClientV4], echo.Peers.Select(peer => $"{peer.Address}"));
        Assert.Equal(5000, echo.Peers.First().Port);
        Assert.NotEqual(5000, echo.Peers.Last().Port);
    }

    [Fact]
    public void A_client_from_a_port_on_which_the_container_listens_keeps_its_address()
    {
        using Surroundings around = new();
        using TcpService echo = TcpService.Echo(around.Container, new IPEndPoint(IPAddress.Any, 80)), taken = TcpService.Echo(around.Container, new IPEndPoint(IPAddress.Any, 6000));
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80");
        using Socket client = around.Connect(Surroundings.HostV4, 8080, from: 6000);
        Assert.Equal("question", client.Exchange("question"));
        Assert.Equal(Surroundings.ClientV4, $"{echo.OnlyPeer().Address}");
    }

    /// <summary>The last close of a connection leaves its four-tuple in use for a minute, at whichever end closed first.</summary>
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void The_same_port_of_a_client_can_come_again_at_once(bool clientCloses)
    {
        using Surroundings around = new();
        using TcpService server = clientCloses ? TcpService.Echo(around.Container, 80) : TcpService.Says(around.Container, 80, "words");
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80");
        for (int i = 0; i < 20; i++)
        {
            using Socket client = around.Connect(Surroundings.HostV4, 8080, from: clientCloses ? 0 : 5000);
            if (clientCloses)
                Assert.Equal("question", client.Exchange("question"));
            else
                Assert.Equal("words", client.ReadToEnd());
        }

        Assert.All(server.Peers, peer => Assert.Equal(Surroundings.ClientV4, $"{peer.Address}"));
        Assert.Equal(20, server.Peers.Count);
    }

    [Theory]
    [InlineData(Surroundings.HostV4, true)]
    [InlineData(Surroundings.HostV6, true)]
    [InlineData(Surroundings.HostV4, false)]
    [InlineData(Surroundings.HostV6, false)]
    public void Where_nobody_listens_a_client_is_reset_at_once(string host, bool bridged)
    {
        using Surroundings around = new(bridged: bridged);
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80");
        AssertReset(around, host);
    }

    /// <summary>The answer to a closed port on an address of the container's own would leave by its gateway, and the client would wait for nothing.</summary>
    [Theory]
    [InlineData("10.96.0.1/8080:10.89.0.2/80", Surroundings.HostV4)]
    [InlineData("[fd96::1]/8080:[fd89::2]/80", Surroundings.HostV6)]
    public void So_it_is_on_the_containers_own_address(string rule, string host)
    {
        using Surroundings around = new();
        using RunningForwarder pesto = around.Bed.Serve();
        Assert.Equal(0, pesto.Pesto("-A", "-t", rule).ExitStatus);
        AssertReset(around, host);
        using TcpService echo = TcpService.Echo(around.Container, new IPEndPoint(IPAddress.IPv6Any, 80));
        using Socket again = around.Connect(host, 8080);
        Assert.Equal("question", again.Exchange("question"));
        Assert.Equal(again.Here(), echo.OnlyPeer());
    }

    /// <summary>The reset may come before the client's connect(2) has returned.</summary>
    static void AssertReset(Surroundings around, string host)
    {
        SocketException failed = Assert.ThrowsAny<SocketException>(() =>
        {
            using Socket client = around.Connect(host, 8080);
            client.Receive(new byte[1]);
        });
        Assert.Equal(SocketError.ConnectionReset, failed.SocketErrorCode);
    }

    [Fact]
    public void Large_streams_come_whole_both_ways()
    {
        using Surroundings around = new();
        using TcpService echo = TcpService.Echo(around.Container, 80);
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80");
        using Socket client = around.Connect(Surroundings.HostV4, 8080);
        byte[] all = new byte[8 << 20];
        Random.Shared.NextBytes(all);
        Thread sending = new(() =>
        {
            for (int sent = 0; sent < all.Length;)
                sent += client.Send(all.AsSpan(sent));
        });
        sending.Start();
        Assert.Equal(all, client.ReadExactly(all.Length));
        sending.Join();
    }

    [Fact]
    public void A_hundred_thousand_exchanges_allocate_nothing()
    {
        using Surroundings around = new();
        using TcpService echo = TcpService.Echo(around.Container, 80);
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80");
        byte[] question = new byte[64];
        void Exchange(int connections, int each)
        {
            for (int i = 0; i < connections; i++)
            {
                using Socket client = around.Connect(Surroundings.HostV4, 8080);
                for (int j = 0; j < each; j++)
                    client.Exchange(question);
            }
        }

        Exchange(50, 20);
        // What prints the counters allocates, the same each time.
        _ = pesto.Statistic("gc_bytes");
        long first = pesto.Statistic("gc_bytes"), second = pesto.Statistic("gc_bytes");
        Exchange(200, 500);
        Assert.Equal(second - first, pesto.Statistic("gc_bytes") - second);
        Assert.All(echo.Peers, peer => Assert.Equal(Surroundings.ClientV4, $"{peer.Address}"));
    }
}
