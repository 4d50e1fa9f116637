using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Udp;

/// <summary>A datagram gets to the target as it is, and the answer to the client that asked, from where it asked.</summary>
public sealed class EchoTests
{
    /// <summary>The most that a UDP datagram over IPv4 can carry.</summary>
    const int Largest = 65_507;

    static readonly int[] Sizes = [0, 1, 1400, 9000, Largest];

    [Theory]
    [InlineData("5353:53", "127.0.0.1")]
    [InlineData("5353:53", "::1")]
    [InlineData("0.0.0.0/5353:53", "127.0.0.1")]
    [InlineData("[::]/5353:53", "::1")]
    [InlineData("127.0.0.1/5353:53", "127.0.0.1")]
    [InlineData("[::1]/5353:53", "::1")]
    public void Datagrams_of_any_size_come_back(string specifier, string address)
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-u", specifier);
        using UdpEcho echo = Echo(bed.Container, address);
        using Socket client = bed.Host.ConnectUdp(new IPEndPoint(IPAddress.Parse(address), 5353));
        foreach (int size in Sizes)
        {
            byte[] question = RandomNumberGenerator.GetBytes(size);
            Assert.Equal(question, Ask(client, question));
        }

        Assert.Equal(Sizes.Length, echo.Received);
        Assert.Equal(1, pesto.Statistic("udp_total"));
    }

    [Fact]
    public void The_host_serves_the_container_just_so()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-U", "5353:53");
        using UdpEcho v4 = Echo(bed.Host, "127.0.0.1"), v6 = Echo(bed.Host, "::1");
        using Socket one = bed.Container.ConnectUdp(5353), other = bed.Container.ConnectUdp(new IPEndPoint(IPAddress.IPv6Loopback, 5353));
        Assert.Equal("four", one.Exchange("four"));
        Assert.Equal("six", other.Exchange("six"));
    }

    [Fact]
    public void An_ordinary_user_forwards_to_his_container()
    {
        Account.NeedOrdinary();
        using Testbed bed = new(Account.Ordinary);
        using RunningForwarder pesto = bed.Serve("-u", "5353:53", "-U", "5454:54");
        using UdpEcho inside = Echo(bed.Container, "127.0.0.1"), outside = new(bed.Host, 54);
        using Socket inward = bed.Host.ConnectUdp(5353), outward = bed.Container.ConnectUdp(5454);
        Assert.Equal("in", inward.Exchange("in"));
        Assert.Equal("out", outward.Exchange("out"));
    }

    [Fact]
    public void A_target_address_and_port_is_where_datagrams_go()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-u", "127.0.0.1/5353:127.0.0.7/53");
        using UdpEcho echo = Echo(bed.Container, "127.0.0.7");
        using Socket client = bed.Host.ConnectUdp(5353);
        Assert.Equal("question", client.Exchange("question"));
    }

    [Fact]
    public void Answers_come_from_the_address_that_the_client_used()
    {
        using Testbed bed = new();
        using NetworkNamespace outside = NetworkNamespace.Create();
        string device = outside.Link(
            bed.Host,
            ["10.1.0.2/24", "fd01::2/64", "fe80::2/64"],
            ["10.1.0.1/24", "10.1.0.8/24", "10.1.0.9/24", "fd01::1/64", "fd01::8/64", "fe80::1/64", "fe80::8/64"]);
        using RunningForwarder pesto = bed.Serve("-u", "5353:53");
        using UdpEcho v4 = Echo(bed.Container, "127.0.0.1"), v6 = Echo(bed.Container, "::1");

        string[] addresses = ["10.1.0.1", "10.1.0.8", "10.1.0.9", "fd01::1", "fd01::8", $"fe80::1%{device}", $"fe80::8%{device}"];
        foreach (string text in addresses)
        {
            IPEndPoint at = outside.Run(() => new IPEndPoint(IPAddress.Parse(text), 5353));
            using Socket client = Unconnected(outside, at.AddressFamily);
            client.SendTo([1, 2, 3], at);
            Assert.Equal(at, Receive(client, out byte[] answer));
            Assert.Equal([1, 2, 3], answer);
        }

        // One socket of a client's that talks to all of them is told apart by where it sends to.
        Assert.Equal(addresses.Length, pesto.Statistic("udp_open"));
    }

    [Theory]
    [InlineData("5353:53")]
    [InlineData("0.0.0.0/5353:53")]
    public void A_broadcast_is_answered_from_an_address_of_the_host(string specifier)
    {
        using Testbed bed = new();
        using NetworkNamespace outside = NetworkNamespace.Create();
        outside.Link(bed.Host, ["10.1.0.2/24"], ["10.1.0.1/24"]);
        using RunningForwarder pesto = bed.Serve("-u", specifier);
        using UdpEcho echo = Echo(bed.Container, "127.0.0.1");
        using Socket client = Unconnected(outside, AddressFamily.InterNetwork);
        client.EnableBroadcast = true;
        client.SendTo([1], new IPEndPoint(IPAddress.Parse("10.1.0.255"), 5353));
        Assert.Equal(new IPEndPoint(IPAddress.Parse("10.1.0.1"), 5353), Receive(client, out _));
    }

    [Fact]
    public void Datagrams_of_a_flow_keep_their_order()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-u", "5353:53");
        using UdpEcho echo = Echo(bed.Container, "127.0.0.1");
        using Socket client = bed.Host.ConnectUdp(5353);
        // Sizes that change, so that some go as segments and some do not.
        for (int round = 0; round < 20; round++)
        {
            byte[][] questions = [.. Enumerable.Range(0, 50).Select(i => RandomNumberGenerator.GetBytes(i % 7 == 0 ? i : 100 + (i / 10)))];
            foreach (byte[] question in questions)
                client.Send(question);
            byte[] buffer = new byte[Largest];
            foreach (byte[] question in questions)
                Assert.Equal(question, buffer[..client.Receive(buffer)]);
        }
    }

    static UdpEcho Echo(NetworkNamespace where, string address) => new(where, new IPEndPoint(IPAddress.Parse(address), 53));

    static byte[] Ask(Socket client, byte[] question)
    {
        byte[] buffer = new byte[Largest];
        client.Send(question);
        return buffer[..client.Receive(buffer)];
    }

    static Socket Unconnected(NetworkNamespace where, AddressFamily family)
    {
        Socket socket = where.NewSocket(family, SocketType.Dgram);
        socket.ReceiveTimeout = 20_000;
        return socket;
    }

    static EndPoint Receive(Socket client, out byte[] datagram)
    {
        byte[] buffer = new byte[Largest];
        EndPoint from = new IPEndPoint(client.AddressFamily == AddressFamily.InterNetwork ? IPAddress.Any : IPAddress.IPv6Any, 0);
        datagram = buffer[..client.ReceiveFrom(buffer, ref from)];
        return from;
    }
}
