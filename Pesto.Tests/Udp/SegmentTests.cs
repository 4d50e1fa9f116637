using System.Net;
using System.Net.Sockets;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Udp;

/// <summary>A peer that hands the kernel many datagrams as one (UDP_SEGMENT, as QUIC does) is carried just so, and a peer that does not know of it sees datagrams.</summary>
public sealed class SegmentTests
{
    const int SolUdp = 17, UdpSegment = 103, UdpGro = 104;
    const int Size = 1200, Count = 40;

    [Fact]
    public void Segments_arrive_as_segments()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-u", "5353:53");
        using Socket target = Bound(bed.Container);
        using Socket client = bed.Host.ConnectUdp(5353);
        TakeSegments(target);
        TakeSegments(client);
        byte[] segments = Segments(), buffer = new byte[65536];

        client.SetRawSocketOption(SolUdp, UdpSegment, BitConverter.GetBytes(Size));
        client.Send(segments);
        EndPoint from = new IPEndPoint(IPAddress.Any, 0);
        Assert.Equal(segments, buffer[..target.ReceiveFrom(buffer, ref from)]);

        target.SetRawSocketOption(SolUdp, UdpSegment, BitConverter.GetBytes(Size));
        target.SendTo(segments, from);
        Assert.Equal(segments, buffer[..client.Receive(buffer)]);
        Assert.Equal((Count, Count), Datagrams(pesto));
    }

    [Fact]
    public void Segments_arrive_as_datagrams_where_segments_are_unknown()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-u", "5353:53");
        using UdpEcho echo = new(bed.Container, 53);
        using Socket client = bed.Host.ConnectUdp(5353);
        byte[] segments = Segments(), buffer = new byte[65536];
        client.SetRawSocketOption(SolUdp, UdpSegment, BitConverter.GetBytes(Size));
        client.Send(segments);
        foreach (byte[] datagram in segments.Chunk(Size))
            Assert.Equal(datagram, buffer[..client.Receive(buffer)]);
        Assert.Equal(Count, echo.Received);
        Assert.Equal((Count, Count), Datagrams(pesto));
    }

    [Fact]
    public void Segments_that_the_path_must_fragment_go_one_by_one()
    {
        using Testbed bed = new();
        using NetworkNamespace outside = NetworkNamespace.Create();
        outside.Link(bed.Host, ["10.1.0.2/24"], ["10.1.0.1/24"]);
        using RunningForwarder pesto = bed.Serve("-u", "5353:53");
        using Socket target = Bound(bed.Container);
        using Socket client = outside.ConnectUdp(new IPEndPoint(IPAddress.Parse("10.1.0.1"), 5353));
        client.Send([1]);
        EndPoint from = new IPEndPoint(IPAddress.Any, 0);
        byte[] buffer = new byte[65536];
        target.ReceiveFrom(buffer, ref from);
        byte[][] answers = [.. Enumerable.Range(0, 8).Select(i => Enumerable.Repeat((byte)i, 8000).ToArray())];
        foreach (byte[] answer in answers)
            target.SendTo(answer, from);
        foreach (byte[] answer in answers)
            Assert.Equal(answer, buffer[..client.Receive(buffer)]);

        // Segments of what is too large for the cable, put together by the target.
        target.SetRawSocketOption(SolUdp, UdpSegment, BitConverter.GetBytes(4000));
        target.SendTo(new byte[16000], from);
        for (int i = 0; i < 4; i++)
            Assert.Equal(4000, client.Receive(buffer));
        Assert.Equal(0, pesto.Statistic("udp_dropped"));
    }

    /// <summary>Only the last is shorter.</summary>
    static byte[] Segments() => [.. Enumerable.Range(0, (Size * (Count - 1)) + 100).Select(i => (byte)(i / 7))];

    static Socket Bound(NetworkNamespace where)
    {
        Socket socket = where.NewSocket(AddressFamily.InterNetwork, SocketType.Dgram);
        socket.ReceiveTimeout = 20_000;
        socket.Bind(new IPEndPoint(IPAddress.Loopback, 53));
        return socket;
    }

    static void TakeSegments(Socket socket) => socket.SetRawSocketOption(SolUdp, UdpGro, BitConverter.GetBytes(1));

    static (long In, long Out) Datagrams(RunningForwarder pesto)
    {
        Dictionary<string, long> all = pesto.Statistics();
        return (all["datagrams_in"], all["datagrams_out"]);
    }
}
