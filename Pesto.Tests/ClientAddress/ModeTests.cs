using System.Net;
using System.Net.Sockets;
using Pesto.Tests.Faults;
using Pesto.Tests.Harness;

namespace Pesto.Tests.ClientAddress;

/// <summary>What each mode of `--client-address` gives, and where it can't, how that is told.</summary>
public sealed class ModeTests
{
    /// <summary>Whatever the target: a server on loopback too sees a stranger as what it is.</summary>
    [Theory]
    [InlineData(Surroundings.HostV4, "127.0.0.1", Surroundings.ContainerV4)]
    [InlineData(Surroundings.HostV4, "0.0.0.0", Surroundings.ContainerV4)]
    [InlineData(Surroundings.HostV6, "::1", Surroundings.ContainerV6)]
    [InlineData(Surroundings.HostV6, "::", Surroundings.ContainerV6)]
    public void Container_is_the_containers_own_address(string host, string server, string expected)
    {
        using Surroundings around = new();
        using TcpService echo = TcpService.Echo(around.Container, new IPEndPoint(IPAddress.Parse(server), 80));
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80", "--client-address", "container");
        using Socket client = around.Connect(host, 8080);
        Assert.Equal("question", client.Exchange("question"));
        Assert.Equal(expected, $"{echo.OnlyPeer().Address}");
    }

    [Fact]
    public void Where_the_container_has_no_address_of_the_clients_family_it_is_one_of_the_other()
    {
        using Surroundings around = new();
        around.InContainer("-6", "address", "flush", "dev", "eth0");
        using TcpService echo = TcpService.Echo(around.Container, 80);
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80", "--client-address", "container");
        using Socket client = around.Connect(Surroundings.HostV6, 8080);
        Assert.Equal("question", client.Exchange("question"));
        Assert.Equal(Surroundings.ContainerV4, $"{echo.OnlyPeer().Address}");
    }

    [Fact]
    public void An_address_that_the_container_gets_later_is_used_and_one_that_it_loses_is_not()
    {
        using Surroundings around = new(bridged: false);
        using TcpService echo = TcpService.Echo(around.Container, 80);
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80", "--client-address", "container");
        AssertRefused(around);
        around.InContainer("address", "add", "192.0.2.7/32", "dev", "lo");
        Assert.Equal("192.0.2.7", Seen());
        around.InContainer("address", "add", "192.0.2.9/32", "dev", "lo");
        around.InContainer("address", "del", "192.0.2.7/32", "dev", "lo");
        Assert.Equal("192.0.2.9", Seen());
        around.InContainer("address", "del", "192.0.2.9/32", "dev", "lo");
        AssertRefused(around);
        Assert.Equal(2, pesto.Statistic("address_refused"));
        Assert.Single(Said(pesto), line => line.Contains("no address but loopback"));

        string Seen()
        {
            using Socket client = around.Connect(Surroundings.HostV4, 8080);
            Assert.Equal("question", client.Exchange("question"));
            return $"{echo.Peers.Last().Address}";
        }
    }

    [Fact]
    public void Loopback_is_loopback_for_everybody()
    {
        using Surroundings around = new();
        using TcpService echo = TcpService.Echo(around.Container, 80);
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80", "--client-address", "loopback");
        using Socket client = around.Connect(Surroundings.HostV4, 8080);
        Assert.Equal("question", client.Exchange("question"));
        Assert.Equal("127.0.0.1", $"{echo.OnlyPeer().Address}");
    }

    [Fact]
    public void Clients_of_a_target_that_is_no_address_of_the_containers_come_by_its_route()
    {
        using Surroundings around = new();
        using TcpService echo = TcpService.Echo(around.Host, new IPEndPoint(IPAddress.Any, 80));
        using RunningForwarder pesto = around.Bed.Serve("-t", $"10.96.0.1/8080:{Surroundings.GatewayV4}/80");
        using Socket client = around.Connect(Surroundings.HostV4, 8080);
        Assert.Equal("question", client.Exchange("question"));
        Assert.Equal(Surroundings.ContainerV4, $"{echo.OnlyPeer().Address}");
    }

    [Theory]
    [InlineData("10.96.0.1/8080:10.89.0.1/80", "not an address of the container's")]
    [InlineData("[fd96::1]/8080:[fd89::9]/80", "not an address of the container's")]
    public void Where_the_address_must_be_kept_a_rule_by_which_it_can_not_be_is_refused(string rule, string why)
    {
        using Surroundings around = new();
        Finished atStart = around.Bed.Pesto("serve", "-f", "--netns", around.Container.Name!, "-t", rule, "--client-address", "keep").Run();
        Assert.Equal(1, atStart.ExitStatus);
        Assert.Contains(why, atStart.Errors);
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80", "--client-address", "keep");
        string before = pesto.Pesto().Output;
        Finished later = pesto.Pesto("-A", "-t", rule.Replace("8080", "8081"));
        Assert.Equal(1, later.ExitStatus);
        Assert.Contains(why, later.Errors);
        Assert.Equal(before, pesto.Pesto().Output);
    }

    [Fact]
    public void Where_the_address_must_be_kept_and_nothing_can_be_set_up_the_start_fails_with_the_reason()
    {
        using Surroundings around = new();
        string before = around.State();
        Command serve = new Command("setpriv", "--bounding-set=-net_admin", "--inh-caps=-all", around.Bed.Program, "serve", "-f", "--netns", around.Container.Name!, "-t", "8080:80", "--client-address", "keep");
        Finished finished = serve.In(around.Host).Run();
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains("can't keep their address", finished.Errors);
        Assert.Contains("Operation not permitted", finished.Errors);
        Assert.Equal(before, around.State());
    }

    [Fact]
    public void Otherwise_one_warning_names_the_reason_and_clients_come_from_the_containers_address()
    {
        using Surroundings around = new();
        using TcpService echo = TcpService.Echo(around.Container, 80);
        using RunningForwarder pesto = around.Bed.ServeBehind(["setpriv", "--bounding-set=-net_admin", "--inh-caps=-all"], "-t", "8080:80");
        Assert.Single(Said(pesto), line => line.Contains("can't be kept") && line.Contains("Operation not permitted"));
        using Socket client = around.Connect(Surroundings.HostV4, 8080);
        Assert.Equal("question", client.Exchange("question"));
        Assert.Equal(Surroundings.ContainerV4, $"{echo.OnlyPeer().Address}");
    }

    [Fact]
    public void Without_nf_tables_TCP_keeps_addresses_and_UDP_comes_from_the_container()
    {
        using Surroundings around = new();
        using TcpService tcp = TcpService.Echo(around.Container, 80);
        using UdpEcho udp = new(around.Container, 80);
        using Preload preload = new();
        preload.FailSockets(family: 16, protocol: 12, Pesto.Linux.Errno.EAFNOSUPPORT);
        using RunningForwarder pesto = around.Bed.ServeBehind(preload.Before, "-t", "8080:80", "-u", "8080:80");
        Assert.Single(Said(pesto), line => line.Contains("clients of UDP come from the container's own address") && line.Contains("nf_tables"));
        using Socket client = around.Connect(Surroundings.HostV4, 8080), datagrams = around.Outside.ConnectUdp(new IPEndPoint(IPAddress.Parse(Surroundings.HostV4), 8080));
        Assert.Equal("question", client.Exchange("question"));
        Assert.Equal("question", datagrams.Exchange("question"));
        Assert.Equal((client.Here(), Surroundings.ContainerV4), (tcp.OnlyPeer(), $"{Assert.Single(udp.Peers).Address}"));
        Finished finished = pesto.Pesto("-A", "-u", "8081:80");
        Assert.Equal(0, finished.ExitStatus);
    }

    [Fact]
    public void Where_the_address_must_be_kept_a_rule_of_a_protocol_for_which_it_can_not_be_is_refused()
    {
        using Surroundings around = new();
        using Preload preload = new();
        preload.FailSockets(family: 16, protocol: 12, Pesto.Linux.Errno.EAFNOSUPPORT);
        using RunningForwarder pesto = around.Bed.ServeBehind(preload.Before, "-t", "8080:80", "--client-address", "keep");
        Finished refused = pesto.Pesto("-A", "-u", "8081:80");
        Assert.Equal(1, refused.ExitStatus);
        Assert.Contains("nf_tables", refused.Errors);
        Assert.Equal(0, pesto.Pesto("-A", "-t", "8081:80").ExitStatus);
    }

    [Fact]
    public void A_container_whose_loopback_is_down_is_named_as_the_reason()
    {
        using Surroundings around = new();
        around.InContainer("link", "set", "lo", "down");
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80");
        Assert.Contains(Said(pesto), line => line.Contains("using the container's loopback interface: Network is down"));
    }

    /// <summary>Without a namespace nothing can be set up; but a target that is on the host's loopback does not take strangers for its own.</summary>
    [Theory]
    [InlineData("auto", Surroundings.HostV4)]
    [InlineData("container", Surroundings.HostV4)]
    [InlineData("loopback", "127.0.0.1")]
    public void Without_a_namespace_clients_come_from_the_host(string mode, string expected)
    {
        using Surroundings around = new(bridged: false);
        using TcpService echo = TcpService.Echo(around.Host, 80);
        using RunningForwarder pesto = around.Bed.ServeOnHost("-t", "8080:80", "--client-address", mode);
        using Socket client = around.Connect(Surroundings.HostV4, 8080);
        Assert.Equal("question", client.Exchange("question"));
        Assert.Equal(expected, $"{echo.OnlyPeer().Address}");
    }

    [Theory]
    [InlineData("--client-address nonsense", "not auto, keep, container, loopback, proxy or proxy-v1")]
    [InlineData("--client-address keep", "needs a network namespace")]
    [InlineData("--client-address-mark 0", "not a number from 1")]
    [InlineData("--client-address-mark 254", "in use")]
    public void What_makes_no_sense_is_refused(string options, string why)
    {
        using Testbed bed = new();
        Finished finished = bed.Pesto(["serve", "-f", "-t", "8080:80", .. options.Split(' ')]).Run();
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains(why, finished.Errors);
    }

    /// <summary>Who binds a service to loopback has not offered it to the network, and an "auto" rule names no port.</summary>
    [Theory]
    [InlineData("127.0.0.1", Surroundings.HostV4)]
    [InlineData("::1", Surroundings.HostV6)]
    public void What_listens_on_loopback_alone_an_auto_rule_shows_to_loopback_alone(string loopback, string host)
    {
        using Surroundings around = new();
        IPAddress any = loopback.Contains(':') ? IPAddress.IPv6Any : IPAddress.Any;
        using TcpService hidden = TcpService.Echo(around.Container, new IPEndPoint(IPAddress.Parse(loopback), 8080)), offered = TcpService.Echo(around.Container, new IPEndPoint(any, 8081));
        using UdpEcho hiddenUdp = new(around.Container, new IPEndPoint(IPAddress.Parse(loopback), 5353)), offeredUdp = new(around.Container, new IPEndPoint(any, 5354));
        using RunningForwarder pesto = around.Bed.Serve("-t", "auto", "-u", "auto");
        using Socket allowed = around.Connect(host, 8081);
        Assert.Equal("question", allowed.Exchange("question"));
        AssertRefused(around, host, 8080);
        using Socket datagrams = around.Outside.ConnectUdp(new IPEndPoint(IPAddress.Parse(host), 5354)), dropped = around.Outside.ConnectUdp(new IPEndPoint(IPAddress.Parse(host), 5353));
        dropped.Send("question"u8);
        Assert.Equal("question", datagrams.Exchange("question"));
        Eventually.Equal(2, () => pesto.Statistic("address_refused"));
        Assert.Equal((0, 0), (hidden.Accepted, hiddenUdp.Received));

        using Socket local = Surroundings.Connect(around.Host, loopback, 8080), localUdp = around.Host.ConnectUdp(new IPEndPoint(IPAddress.Parse(loopback), 5353));
        Assert.Equal("question", local.Exchange("question"));
        Assert.Equal("question", localUdp.Exchange("question"));
        // By its number it is asked for.
        Assert.Equal(0, pesto.Pesto("-t", "8080").ExitStatus);
        using Socket asked = around.Connect(host, 8080);
        Assert.Equal("question", asked.Exchange("question"));
    }

    /// <summary>All that it said up to its counters at this moment, line by line.</summary>
    static string[] Said(RunningForwarder pesto)
    {
        _ = pesto.Statistics();
        return pesto.Process.Errors.Split('\n');
    }

    static void AssertRefused(Surroundings around, string host = Surroundings.HostV4, int port = 8080)
    {
        SocketException failed = Assert.ThrowsAny<SocketException>(() =>
        {
            using Socket client = around.Connect(host, port);
            client.Receive(new byte[1]);
        });
        Assert.Equal(SocketError.ConnectionReset, failed.SocketErrorCode);
    }
}
