using System.Net;
using System.Net.Sockets;
using System.Text;
using Pesto.Tests.Harness;

namespace Pesto.Tests.ClientAddress;

/// <summary>Traffic of the container's that is not the forwarder's goes where it went before.</summary>
public sealed class UntouchedTests
{
    /// <summary>To the port that is forwarded, from the container's neighbour and from beyond its gateway, while the same client comes by the forwarder too.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Direct_clients_are_answered_directly(bool ordinary)
    {
        if (ordinary)
            Account.NeedOrdinary();
        using Surroundings around = new(ordinary ? Account.Ordinary : null);
        using TcpService tcp = TcpService.Echo(around.Container, new IPEndPoint(IPAddress.IPv6Any, 80));
        using UdpEcho udp = new(around.Container, new IPEndPoint(IPAddress.IPv6Any, 80));
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80", "-u", "8080:80");
        foreach ((string host, string container) in new[] { (Surroundings.HostV4, Surroundings.ContainerV4), (Surroundings.HostV6, Surroundings.ContainerV6) })
        {
            using Socket forwarded = around.Connect(host, 8080), forwardedUdp = around.Outside.ConnectUdp(IPEndPoint.Parse(host.Contains(':') ? $"[{host}]:8080" : $"{host}:8080"));
            foreach (NetworkNamespace from in new[] { around.Host, around.Outside })
            {
                using Socket direct = Surroundings.Connect(from, container, 80), directUdp = from.ConnectUdp(new IPEndPoint(IPAddress.Parse(container), 80));
                for (int i = 0; i < 3; i++)
                {
                    Assert.Equal("by the forwarder", forwarded.Exchange("by the forwarder"));
                    Assert.Equal("by the forwarder", forwardedUdp.Exchange("by the forwarder"));
                    Assert.Equal("directly", direct.Exchange("directly"));
                    Assert.Equal("directly", directUdp.Exchange("directly"));
                }

                Assert.Contains(direct.Here(), tcp.Peers.Select(peer => peer.Plain()));
            }
        }
    }

    /// <summary>A client whose flow has ended may come to the container directly with the same port, at once.</summary>
    [Fact]
    public void A_client_whose_flow_has_ended_is_answered_directly()
    {
        using Surroundings around = new();
        using UdpEcho echo = new(around.Container, new IPEndPoint(IPAddress.Any, 80));
        using RunningForwarder pesto = around.Bed.Serve("-u", "8080:80");
        using Socket client = around.Outside.NewSocket(AddressFamily.InterNetwork, SocketType.Dgram);
        client.ReceiveTimeout = 20_000;
        client.Bind(new IPEndPoint(IPAddress.Any, 5000));
        Assert.Equal("by the forwarder", Exchange(client, "by the forwarder", Surroundings.HostV4, 8080));
        Assert.Equal(0, pesto.Pesto("-D", "-u", "8080:80").ExitStatus);
        Eventually.Equal(0, () => pesto.Statistic("udp_open"));
        Assert.Equal("directly", Exchange(client, "directly", Surroundings.ContainerV4, 80));
    }

    /// <summary>As a DNS or NTP server does that asks others from the port on which it is asked itself.</summary>
    [Theory]
    [InlineData(Surroundings.GatewayV4, Surroundings.HostV4)]
    [InlineData(Surroundings.ClientV4, Surroundings.HostV4)]
    [InlineData(Surroundings.GatewayV6, Surroundings.HostV6)]
    [InlineData(Surroundings.ClientV6, Surroundings.HostV6)]
    public void What_the_service_sends_from_its_port_goes_out(string to, string host)
    {
        using Surroundings around = new();
        IPAddress any = to.Contains(':') ? IPAddress.IPv6Any : IPAddress.Any;
        // The client's network has no route back to the container but by its own address, which is what answers go to.
        using UdpEcho world = new(to is Surroundings.GatewayV4 or Surroundings.GatewayV6 ? around.Host : around.Outside, new IPEndPoint(any, 123));
        using RunningForwarder pesto = around.Bed.Serve("-u", "8123:123");
        using Socket service = around.Container.NewSocket(any.AddressFamily, SocketType.Dgram), client = around.Outside.ConnectUdp(new IPEndPoint(IPAddress.Parse(host), 8123));
        service.ReceiveTimeout = 20_000;
        service.Bind(new IPEndPoint(any, 123));
        client.Send("from a client"u8);
        EndPoint from = new IPEndPoint(any, 0);
        byte[] buffer = new byte[100];
        int length = service.ReceiveFrom(buffer, ref from);
        Assert.Equal(("from a client", client.Here()), (Encoding.ASCII.GetString(buffer, 0, length), from.Plain()));
        Assert.Equal("to the world", Exchange(service, "to the world", to, 123));
        service.SendTo("to the client"u8, from);
        Assert.Equal("to the client", Encoding.ASCII.GetString(client.ReadExactly("to the client".Length)));
    }

    [Fact]
    public void The_containers_own_connections_go_out()
    {
        using Surroundings around = new();
        using TcpService neighbour = TcpService.Echo(around.Host, new IPEndPoint(IPAddress.IPv6Any, 7)), world = TcpService.Echo(around.Outside, new IPEndPoint(IPAddress.IPv6Any, 7));
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80", "-u", "8080:80");
        foreach (string to in new[] { Surroundings.GatewayV4, Surroundings.ClientV4, Surroundings.GatewayV6, Surroundings.ClientV6 })
        {
            using Socket socket = Surroundings.Connect(around.Container, to, 7);
            Assert.Equal("question", socket.Exchange("question"));
        }
    }

    /// <summary>Resolvers connect a UDP socket to learn whether an address can be reached at all, and from where.</summary>
    [Fact]
    public void A_program_that_looks_for_a_way_where_there_is_none_learns_that()
    {
        using Surroundings around = new(bridged: false);
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80", "-u", "8080:80");
        foreach (string to in new[] { "192.0.2.1", "2001:db8::1" })
        {
            IPAddress address = IPAddress.Parse(to);
            using Socket tcp = around.Container.NewSocket(address.AddressFamily, SocketType.Stream), udp = around.Container.NewSocket(address.AddressFamily, SocketType.Dgram);
            Assert.Equal(SocketError.NetworkUnreachable, Assert.ThrowsAny<SocketException>(() => tcp.Connect(address, 80)).SocketErrorCode);
            Assert.Equal(SocketError.NetworkUnreachable, Assert.ThrowsAny<SocketException>(() => udp.Connect(address, 53)).SocketErrorCode);
        }
    }

    [Fact]
    public void The_host_is_not_touched()
    {
        using Surroundings around = new();
        string[][] looks = [["rule"], ["-6", "rule"], ["-4", "route", "show", "table", "all"], ["-6", "route", "show", "table", "all"]];
        string Host() => string.Concat(looks.Select(look => new Command("ip", ["-n", around.Host.Name!, .. look]).RunOrFail()))
            + around.Host.Run(() => File.ReadAllText("/proc/sys/net/ipv4/tcp_fwmark_accept"));
        string before = Host();
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80", "-u", "8080:80");
        Assert.Equal(before, Host());
    }

    static string Exchange(Socket socket, string text, string to, int port)
    {
        socket.SendTo(Encoding.ASCII.GetBytes(text), new IPEndPoint(IPAddress.Parse(to), port));
        byte[] buffer = new byte[1000];
        return Encoding.ASCII.GetString(buffer, 0, socket.Receive(buffer));
    }
}
