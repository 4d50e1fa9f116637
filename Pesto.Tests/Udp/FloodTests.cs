using System.Net;
using System.Net.Sockets;
using Mono.Unix.Native;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Udp;

/// <summary>Clients that come once, each from a port of its own, take no flow from those who converse.</summary>
public sealed class FloodTests
{
    const int Room = 20, Rounds = 12;

    [Fact]
    public void A_flood_that_gets_no_reply_ends_no_flow_that_has_one()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-u", "5353:53", "-u", "5454:54", "--udp-max-flows", $"{Room}");
        using UdpEcho echo = new(bed.Container, 53);
        using Socket silent = Silent(bed.Container, 54);
        using Socket first = bed.Host.ConnectUdp(5353), last = bed.Host.ConnectUdp(5353);
        Assert.Equal("question", first.Exchange("question"));
        for (int round = 0; round < Rounds; round++)
        {
            SendOnce(bed.Host, 5454, 2 * Room);
            Eventually.Equal(1 + ((round + 1) * 2 * Room), () => pesto.Statistic("udp_total"));
            Assert.Equal("question", first.Exchange("question"));
        }

        Assert.Single(echo.Peers.Distinct());
        // A newcomer gets a flow too, and keeps it.
        for (int round = 0; round < Rounds; round++)
            Assert.Equal("question", last.Exchange("question"));
        Assert.Equal(2, echo.Peers.Distinct().Count());
    }

    [Fact]
    public void A_flood_that_gets_replies_ends_no_flow_whose_client_has_spoken_again()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-u", "5353:53", "-u", "5454:54", "--udp-max-flows", $"{Room}");
        using UdpEcho echo = new(bed.Container, 53), flooded = new(bed.Container, 54);
        using Socket client = bed.Host.ConnectUdp(5353);
        Assert.Equal("question", client.Exchange("question"));
        for (int round = 0; round < Rounds; round++)
        {
            Assert.Equal("question", client.Exchange("question"));
            SendOnce(bed.Host, 5454, 2 * Room);
            Eventually.Equal((round + 1) * 2 * Room, () => flooded.Received);
        }

        Assert.Equal("question", client.Exchange("question"));
        Assert.Single(echo.Peers.Distinct());
    }

    [Fact]
    public void Clients_that_come_at_once_where_all_room_is_taken_each_get_a_reply()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-u", "5353:53", "--udp-max-flows", $"{Room}");
        using UdpEcho echo = new(bed.Container, 53);
        SendOnce(bed.Host, 5353, Room);
        Eventually.Equal(Room, () => echo.Received);
        Eventually.Equal(Room, () => pesto.Statistic("udp_open"));
        Socket[] clients = [.. Enumerable.Range(0, Room / 4).Select(_ => bed.Host.ConnectUdp(5353))];
        pesto.Process.Signal(Signum.SIGSTOP);
        foreach (Socket client in clients)
            client.Send([1]);
        pesto.Process.Signal(Signum.SIGCONT);
        foreach (Socket client in clients)
        {
            Assert.Equal(1, client.Receive(new byte[1]));
            client.Dispose();
        }
    }

    [Fact]
    public void A_flood_leaves_descriptors_for_control_and_for_connections()
    {
        const int FirstPort = 7000, Ports = 120, Connections = 6;
        using Testbed bed = new();
        using RunningForwarder pesto = bed.ServeBehind(["prlimit", "--nofile=256:256"], "-u", $"{FirstPort}-{FirstPort + Ports - 1}", "-t", "8080:80");
        Socket[] silent = [.. Enumerable.Range(FirstPort, Ports).Select(port => Silent(bed.Container, port))];
        using TcpService service = TcpService.Echo(bed.Container, 80);
        using Flood flood = new(bed.Host, new IPEndPoint(IPAddress.Loopback, FirstPort), Ports);
        flood.WaitForMore(2000);
        Socket[] connections = new Socket[Connections];
        for (int i = 0; i < Connections; i++)
        {
            flood.WaitForMore(100);
            Finished listing = pesto.Pesto();
            Assert.True(listing.ExitStatus == 0, listing.ToString());
            connections[i] = bed.Host.Connect(8080);
            Assert.Equal("served", connections[i].Exchange("served"));
        }

        foreach (Socket connection in connections)
        {
            Assert.Equal("still", connection.Exchange("still"));
            connection.Dispose();
        }

        Dictionary<string, long> counters = pesto.Statistics();
        Assert.Equal((Connections, 0), (counters["tcp_total"], counters["shed"]));
        Assert.InRange(counters["udp_open"], 1, 120);
        foreach (Socket socket in silent)
            socket.Dispose();
    }

    /// <summary>A target that never replies.</summary>
    static Socket Silent(NetworkNamespace where, int port)
    {
        Socket socket = where.NewSocket(AddressFamily.InterNetwork, SocketType.Dgram);
        socket.Bind(new IPEndPoint(IPAddress.Loopback, port));
        return socket;
    }

    /// <summary>Sends datagrams, each from another port.</summary>
    static void SendOnce(NetworkNamespace from, int port, int count)
    {
        const int FirstPort = 20_000;
        Socket[] sockets = from.Run(() => Enumerable.Range(FirstPort, count).Select(Bound).ToArray());
        foreach (Socket socket in sockets)
        {
            socket.SendTo([1], new IPEndPoint(IPAddress.Loopback, port));
            socket.Dispose();
        }

        static Socket Bound(int port)
        {
            Socket socket = new(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Unspecified);
            socket.Bind(new IPEndPoint(IPAddress.Loopback, port));
            return socket;
        }
    }
}
