using System.Net;
using System.Net.Sockets;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Udp;

/// <summary>What updates do to UDP: nothing to flows whose address and port stay served.</summary>
public sealed class UpdateTests
{
    [Fact]
    public void Seven_hundred_updates_of_other_rules_lose_no_datagram()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-u", "5353:53");
        using UdpEcho echo = new(bed.Container, 53);
        using ExchangeLoop exchanges = new(bed.Host.ConnectUdp(5353));
        exchanges.WaitForMore(10);
        string updates = "for i in $(seq 350); do \"$0\" -A -u 9000-9009 -t 9000 \"$1\" && \"$0\" -D -u 9000-9009 -t 9000 \"$1\" || exit 1; done";
        Finished finished = new Command("sh", "-c", updates, Programs.Pesto, pesto.Control).In(bed.Host).Run(TimeSpan.FromMinutes(2));
        Assert.True(finished.ExitStatus == 0, finished.ToString());
        exchanges.WaitForMore(10);
        Dictionary<string, long> all = pesto.Statistics();
        Assert.Equal((1, 0), (all["udp_total"], all["udp_dropped"]));
        Assert.Equal(701, all["commits"]);
    }

    [Fact]
    public void A_flow_goes_on_when_the_address_that_is_listened_on_changes_around_it()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-u", "0.0.0.0/5353:53");
        using UdpEcho echo = new(bed.Container, 53);
        using ExchangeLoop exchanges = new(bed.Host.ConnectUdp(5353));
        foreach (string specifier in new[] { "127.0.0.1/5353:53", "5353:53", "0.0.0.0/5353:53", "5353:53", "127.0.0.1/5353:53", "0.0.0.0/5353:53" })
        {
            exchanges.WaitForMore(10);
            Finished finished = pesto.Pesto("-u", specifier);
            Assert.True(finished.ExitStatus == 0, finished.ToString());
        }

        exchanges.WaitForMore(10);
        Dictionary<string, long> all = pesto.Statistics();
        Assert.Equal((1, 1, 0), (all["udp_open"], all["udp_total"], all["udp_dropped"]));
    }

    /// <summary>Two networks with the same addresses: a reply that leaves by the wrong interface comes to somebody.</summary>
    [Fact]
    public void A_flow_goes_on_by_the_interface_of_its_client_or_ends()
    {
        using Testbed bed = new();
        using NetworkNamespace one = NetworkNamespace.Create(), other = NetworkNamespace.Create();
        string device = bed.Host.Link(one, ["10.1.0.1/24"], ["10.1.0.2/24", "10.2.0.2/24"]);
        bed.Host.Link(other, ["10.2.0.1/24"], ["10.2.0.2/24"]);
        using RunningForwarder pesto = bed.Serve("-u", "0.0.0.0/5353:53");
        using Socket target = bed.Container.NewSocket(AddressFamily.InterNetwork, SocketType.Dgram);
        target.Bind(new IPEndPoint(IPAddress.Loopback, 53));
        target.ReceiveTimeout = 20_000;
        using Socket stays = one.ConnectUdp(IPEndPoint.Parse("10.1.0.1:5353")), ends = other.ConnectUdp(IPEndPoint.Parse("10.2.0.1:5353"));
        using Socket stranger = one.NewSocket(AddressFamily.InterNetwork, SocketType.Dgram);
        stranger.Bind(ends.LocalEndPoint!);
        EndPoint stayer = Request(stays), ender = Request(ends);

        Finished finished = pesto.Pesto("-u", $"0.0.0.0%{device}/5353:53");
        Assert.True(finished.ExitStatus == 0, finished.ToString());
        target.SendTo([1], ender);
        target.SendTo([2], stayer);
        byte[] reply = new byte[1];
        Assert.Equal((1, 2), (stays.Receive(reply), reply[0]));
        Assert.Equal(0, stranger.Available);
        Assert.Equal(stayer, Request(stays));
        Assert.Equal(1, pesto.Statistic("udp_open"));

        EndPoint Request(Socket client)
        {
            EndPoint from = new IPEndPoint(IPAddress.Any, 0);
            client.Send([1]);
            target.ReceiveFrom(new byte[1], ref from);
            return from;
        }
    }

    [Fact]
    public void Flows_end_with_their_rule()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-u", "5353:53", "-u", "5454:53");
        using UdpEcho echo = new(bed.Container, 53);
        using Socket goes = bed.Host.ConnectUdp(5353), stays = bed.Host.ConnectUdp(5454);
        Assert.Equal("question", goes.Exchange("question"));
        Assert.Equal("question", stays.Exchange("question"));
        Assert.Equal(0, pesto.Pesto("-D", "-u", "5353:53").ExitStatus);
        Eventually.Equal(1, () => pesto.Statistic("udp_open"));
        Assert.Equal("question", stays.Exchange("question"));
        Assert.Equal(2, pesto.Statistic("udp_total"));
        goes.Send([1]);
        SocketException refused = Assert.Throws<SocketException>(() => goes.Receive(new byte[1]));
        Assert.Equal(SocketError.ConnectionRefused, refused.SocketErrorCode);
    }

    [Fact]
    public void A_rules_new_target_is_where_the_next_datagram_goes()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-u", "5353:53");
        using UdpEcho old = new(bed.Container, 53), other = new(bed.Container, 54);
        using Socket client = bed.Host.ConnectUdp(5353);
        Assert.Equal("question", client.Exchange("question"));
        Assert.Equal(0, pesto.Pesto("-u", "5353:54").ExitStatus);
        Assert.Equal("question", client.Exchange("question"));
        Assert.Equal((1, 1), (old.Received, other.Received));
        Assert.Equal(1, pesto.Statistic("udp_open"));
    }

    [Fact]
    public void A_port_that_is_taken_is_a_failure_that_is_told()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-u", "5353:53");
        using Socket taken = bed.Host.NewSocket(AddressFamily.InterNetwork, SocketType.Dgram);
        taken.Bind(new IPEndPoint(IPAddress.Any, 5454));
        Finished finished = pesto.Pesto("-A", "-u", "5454:53");
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains("5454", finished.Errors);
    }
}
