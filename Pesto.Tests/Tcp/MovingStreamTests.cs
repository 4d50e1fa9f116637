using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Tcp;

/// <summary>Many streams that never pause, so that the forwarder always has more to move.</summary>
[Collection(Alone.Name)]
public sealed class MovingStreamTests
{
    const int Streams = 48;

    /// <summary>Longer than the time-outs, so that these would strike.</summary>
    static readonly TimeSpan Duration = TimeSpan.FromSeconds(4);

    [Fact]
    public void What_moves_is_not_idle_and_not_left_half_closed_however_many_move()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80", "--idle-timeout", "1", "--half-closed-timeout", "1");
        ConcurrentBag<long> received = [], sent = [];
        // Each with a thread of its own: one that is borrowed may be somebody else's for longer than the time-outs.
        using TcpService service = new(bed.Container, new(IPAddress.Loopback, 80), socket => Task.Factory.StartNew(() => Serve(socket, sent), TaskCreationOptions.LongRunning));
        AtOnce.Run(Streams, i =>
        {
            using Socket client = bed.Host.Connect(8080);
            byte[] buffer = new byte[256 * 1024];
            if (i % 2 == 0)
            {
                long total = 0;
                for (Stopwatch watch = Stopwatch.StartNew(); watch.Elapsed < Duration;)
                    total += client.Send(buffer);
                client.Shutdown(SocketShutdown.Send);
                Assert.Equal(total, BitConverter.ToInt64(client.ReadExactly(sizeof(long))));
                return;
            }

            client.Send("d"u8);
            client.Shutdown(SocketShutdown.Send);
            long got = 0;
            int count;
            while ((count = client.Receive(buffer)) > 0)
                got += count;
            received.Add(got);
        });
        Assert.Equal(sent.Order(), received.Order());
        Assert.Equal(Streams, pesto.Statistic("tcp_total"));
    }

    static void Serve(Socket socket, ConcurrentBag<long> sent)
    {
        byte[] buffer = new byte[256 * 1024];
        int count = socket.Receive(buffer.AsSpan(0, 1));
        long total = count;
        if (count == 1 && buffer[0] == 'd')
        {
            // The client has ended its stream: all this goes through a half-closed connection.
            Assert.Equal(0, socket.Receive(buffer));
            total = 0;
            for (Stopwatch watch = Stopwatch.StartNew(); watch.Elapsed < Duration;)
                total += socket.Send(buffer);
            sent.Add(total);
            socket.Shutdown(SocketShutdown.Send);
            return;
        }

        while ((count = socket.Receive(buffer)) > 0)
            total += count;
        socket.Send(BitConverter.GetBytes(total));
        socket.Shutdown(SocketShutdown.Send);
    }

    [Fact]
    public void A_forwarder_that_was_stopped_for_longer_than_the_idle_time_finds_what_has_come_meanwhile()
    {
        const int Connections = 700;
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80", "--idle-timeout", "2");
        using TcpService service = TcpService.Echo(bed.Container, 80);
        Socket[] clients = bed.Host.Run(() => Enumerable.Range(0, Connections).Select(_ => Connected()).ToArray());
        foreach (Socket client in clients)
            client.Exchange("before");
        pesto.Process.Signal(Mono.Unix.Native.Signum.SIGSTOP);
        foreach (Socket client in clients)
            client.Send("while stopped"u8);
        Thread.Sleep(TimeSpan.FromSeconds(2.5));
        pesto.Process.Signal(Mono.Unix.Native.Signum.SIGCONT);
        foreach (Socket client in clients)
        {
            client.ReadExactly("while stopped".Length);
            client.Dispose();
        }
    }

    static Socket Connected()
    {
        Socket socket = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true, ReceiveTimeout = 20_000 };
        socket.Connect(new IPEndPoint(IPAddress.Loopback, 8080));
        return socket;
    }
}
