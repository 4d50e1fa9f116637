using System.Collections.Concurrent;
using System.Net.Sockets;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Tcp;

/// <summary>A forwarded connection is like a direct one: what one side does, the other sees, in order and in full.</summary>
public sealed class StreamTests
{
    const int Port = 8080;

    /// <summary>More than all the kernel's buffers on the way can hold.</summary>
    const int MoreThanBuffers = 96 << 20;

    [Fact]
    public void The_clients_half_close_reaches_the_target_and_answers_still_come_back()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        using TcpService service = new(bed.Container, Loopback(80), async socket =>
        {
            int count = await CountToEnd(socket);
            await socket.SendAsync(Encode($"{count} bytes"));
        });
        using Socket client = bed.Host.Connect(Port);
        client.Send(new byte[100_000]);
        client.Shutdown(SocketShutdown.Send);
        Assert.Equal("100000 bytes", client.ReadToEnd());
    }

    [Fact]
    public void The_targets_half_close_reaches_the_client_which_may_go_on_sending()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        TaskCompletionSource<int> counted = new();
        using TcpService service = new(bed.Container, Loopback(80), async socket =>
        {
            await socket.SendAsync(Encode("all there is"));
            socket.Shutdown(SocketShutdown.Send);
            counted.SetResult(await CountToEnd(socket));
        });
        using Socket client = bed.Host.Connect(Port);
        Assert.Equal("all there is", client.ReadToEnd());
        for (int i = 0; i < 100; i++)
            client.Send(new byte[10_000]);
        client.Shutdown(SocketShutdown.Send);
        Assert.Equal(1_000_000, Within(counted.Task));
    }

    [Fact]
    public void Both_sides_may_half_close_before_a_byte_is_sent()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        using TcpService service = TcpService.Echo(bed.Container, 80);
        for (int i = 0; i < 100; i++)
        {
            using Socket client = bed.Host.Connect(Port);
            client.Shutdown(SocketShutdown.Send);
            Assert.Equal("", client.ReadToEnd());
        }

        Assert.Equal(100, service.Accepted);
        Eventually.Equal(0L, () => pesto.Statistic("tcp_open"));
    }

    [Fact]
    public void Connections_that_end_without_a_byte_leave_nothing_behind()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        using TcpService service = TcpService.Echo(bed.Container, 80);
        // What counts for us has finished starting.
        Assert.Equal(0, pesto.Statistic("tcp_open"));
        int before = pesto.Process.Descriptors;
        for (int i = 0; i < 200; i++)
        {
            Socket client = bed.Host.Connect(Port);
            if (i % 2 == 0)
                client.Reset();
            else
                client.Dispose();
        }

        Eventually.Equal(200L, () => pesto.Statistic("tcp_total"));
        Eventually.Equal(0L, () => pesto.Statistic("tcp_open"));
        Eventually.True(() => pesto.Process.Descriptors <= before + 2 * pesto.Statistic("pipes"), "its descriptors are closed");
        Eventually.Equal(0, () => service.Open);
    }

    [Fact]
    public void The_clients_reset_reaches_the_target_as_a_reset()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        ConcurrentQueue<SocketError> ends = new();
        using TcpService service = new(bed.Container, Loopback(80), socket => End(socket, ends));
        for (int i = 1; i <= 50; i++)
        {
            int accepted = service.Accepted, ended = ends.Count;
            Socket client = bed.Host.Connect(Port);
            // At once, with bytes just behind it, and while nothing is going on.
            if (i % 3 != 0)
                client.Send(new byte[i * 1000]);
            if (i % 3 == 1)
                Eventually.True(() => service.Accepted > accepted, "the target has accepted");
            client.Reset();
            if (i % 3 == 1)
                Eventually.True(() => ends.Count > ended, "the target sees an end");
        }

        // A connection that is reset before it was accepted may never be seen by the target.
        Eventually.Equal(0L, () => pesto.Statistic("tcp_open"));
        Eventually.Equal(0, () => service.Open);
        Assert.NotEmpty(ends);
        Assert.All(ends, end => Assert.Equal(SocketError.ConnectionReset, end));
    }

    [Fact]
    public void The_targets_reset_reaches_the_client_as_a_reset()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        using TcpService service = new(bed.Container, Loopback(80), async socket =>
        {
            int count = await socket.ReceiveAsync(new byte[1]);
            Assert.Equal(1, count);
            await socket.SendAsync(Encode("partly"));
            socket.Reset();
        });
        for (int i = 0; i < 50; i++)
        {
            using Socket client = bed.Host.Connect(Port);
            client.Send("?"u8);
            Assert.Equal(SocketError.ConnectionReset, Assert.Throws<SocketException>(client.ReadToEnd).SocketErrorCode);
        }
    }

    [Fact]
    public void A_reset_after_a_half_close_passes_on_too()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        using TcpService service = new(bed.Container, Loopback(80), async socket =>
        {
            Assert.Equal(5, await CountToEnd(socket));
            socket.Reset();
        });
        using Socket client = bed.Host.Connect(Port);
        client.Send("hello"u8);
        client.Shutdown(SocketShutdown.Send);
        Assert.Equal(SocketError.ConnectionReset, Assert.Throws<SocketException>(client.ReadToEnd).SocketErrorCode);
    }

    [Fact]
    public void A_client_whose_target_refuses_is_reset_and_counted()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        for (int i = 0; i < 20; i++)
        {
            Assert.Equal(SocketError.ConnectionReset, Assert.Throws<SocketException>(() =>
            {
                using Socket client = bed.Host.Connect(Port);
                client.ReadToEnd();
            }).SocketErrorCode);
        }

        Assert.Equal(20, pesto.Statistic("refused"));
        Assert.Equal(0, pesto.Statistic("tcp_open"));
    }

    [Fact]
    public void A_server_may_speak_first()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        using TcpService service = new(bed.Container, Loopback(80), async socket =>
        {
            await socket.SendAsync(Encode("220 ready\n"));
            byte[] answer = new byte[16];
            int count = await socket.ReceiveAsync(answer);
            await socket.SendAsync(answer.AsMemory(0, count));
        });
        using Socket client = bed.Host.Connect(Port);
        Assert.Equal("220 ready\n", System.Text.Encoding.UTF8.GetString(client.ReadExactly(10)));
        Assert.Equal("HELO\n", client.Exchange("HELO\n"));
    }

    [Fact]
    public void What_a_client_sends_before_the_target_accepts_waits_for_it()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        using Socket listener = bed.Container.NewSocket(AddressFamily.InterNetwork, SocketType.Stream);
        listener.Bind(Loopback(80));
        listener.Listen(8);
        using Socket client = bed.Host.Connect(Port);
        byte[] sent = new Pattern(1).Take(20_000);
        client.Send(sent);
        client.Shutdown(SocketShutdown.Send);
        Eventually.Equal(20_000L, () => pesto.Statistic("bytes_in"));
        using Socket accepted = listener.Accept();
        Assert.Equal(sent, accepted.ReadExactly(20_000));
        Assert.Equal(0, accepted.Receive(new byte[1]));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(1_000)]
    [InlineData(100_000)]
    [InlineData(3_000_000)]
    public void What_was_sent_just_before_a_close_arrives(int size)
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        ConcurrentQueue<long> lengths = new();
        using TcpService service = new(bed.Container, Loopback(80), async socket =>
        {
            Pattern pattern = new(size);
            byte[] buffer = new byte[50_000];
            int count;
            while ((count = await socket.ReceiveAsync(buffer)) > 0)
                pattern.Check(buffer.AsSpan(0, count));
            lengths.Enqueue(pattern.Position);
        });
        byte[] bytes = new Pattern(size).Take(size);
        for (int i = 0; i < 20; i++)
        {
            using Socket client = bed.Host.Connect(Port);
            SendAll(client, bytes);
        }

        Eventually.Equal(20, () => lengths.Count);
        Assert.All(lengths, length => Assert.Equal(size, length));
    }

    [Fact]
    public void What_the_target_sent_just_before_its_close_arrives()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        byte[] bytes = new Pattern(7).Take(2_000_000);
        using TcpService service = new(bed.Container, Loopback(80), async socket =>
        {
            for (int sent = 0; sent < bytes.Length;)
                sent += await socket.SendAsync(bytes.AsMemory(sent));
        });
        for (int i = 0; i < 20; i++)
        {
            using Socket client = bed.Host.Connect(Port);
            Assert.Equal(bytes, client.ReadExactly(bytes.Length));
            Assert.Equal(0, client.Receive(new byte[1]));
        }
    }

    [Fact]
    public void A_client_is_held_up_by_a_target_that_does_not_read_and_nothing_is_lost()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        using Socket listener = bed.Container.NewSocket(AddressFamily.InterNetwork, SocketType.Stream);
        listener.Bind(Loopback(80));
        listener.Listen(8);
        using Socket client = bed.Host.Connect(Port);
        using Socket server = listener.Accept();
        HoldUp(pesto, client, server);
    }

    [Fact]
    public void A_target_is_held_up_by_a_client_that_does_not_read_and_nothing_is_lost()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        using Socket listener = bed.Container.NewSocket(AddressFamily.InterNetwork, SocketType.Stream);
        listener.Bind(Loopback(80));
        listener.Listen(8);
        using Socket client = bed.Host.Connect(Port);
        using Socket server = listener.Accept();
        HoldUp(pesto, server, client);
    }

    /// <summary>Sends until the sender is held up, then has all of it read.</summary>
    static void HoldUp(RunningForwarder pesto, Socket sender, Socket receiver)
    {
        long resident = pesto.Process.Resident;
        Pattern sent = new(2);
        sender.Blocking = false;
        byte[] piece = new byte[256 * 1024];
        // Not writable for so long: it is held up. If it were only slow, less would be in the way, and the rest of the test the same.
        while (sent.Position < MoreThanBuffers && sender.Poll(TimeSpan.FromMilliseconds(300), SelectMode.SelectWrite))
        {
            sent.Fill(piece);
            int taken = Math.Max(0, sender.Send(piece, SocketFlags.None, out _));
            sent.StepBack(piece.Length - taken);
        }

        Assert.True(sent.Position < MoreThanBuffers, $"{sent.Position} bytes were taken from the sender and nobody reads them");
        // What waits is in the kernel's buffers.
        Assert.True(pesto.Process.Resident - resident < 2 << 20, $"grew by {pesto.Process.Resident - resident} bytes");
        sender.Shutdown(SocketShutdown.Send);
        CheckToEnd(receiver, new Pattern(2), sent.Position);
    }

    [Fact]
    public void Many_connections_that_write_all_sizes_both_ways_at_once_lose_nothing()
    {
        const int Connections = 32;
        const long Each = 3_000_000;
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        ConcurrentQueue<Exception> failures = new();
        using TcpService service = new(bed.Container, Loopback(80), async socket =>
        {
            byte[] number = new byte[1];
            Assert.Equal(1, await socket.ReceiveAsync(number));
            await Task.Run(() =>
            {
                try
                {
                    Talk(socket, 1000 + number[0], number[0], Each);
                }
                catch (Exception e)
                {
                    failures.Enqueue(e);
                }
            });
        });
        AtOnce.Run(Connections, number =>
        {
            using Socket client = bed.Host.Connect(Port);
            client.Send([(byte)number]);
            Talk(client, number, 1000 + number, Each);
        });
        Eventually.Equal(0, () => service.Open);
        Assert.Empty(failures);
        Eventually.Equal(0L, () => pesto.Statistic("tcp_open"));
        Assert.Equal(Connections * (Each + 1), pesto.Statistic("bytes_in"));
        Assert.Equal(Connections * Each, pesto.Statistic("bytes_out"));
    }

    /// <summary>Sends one pattern in pieces of random size while it receives and checks the other.</summary>
    static void Talk(Socket socket, int sends, int receives, long length) => AtOnce.Run(
        () => CheckToEnd(socket, new Pattern(receives), length),
        () =>
        {
            Random random = new(sends);
            Pattern pattern = new(sends);
            while (pattern.Position < length)
            {
                // Mostly small, now and then more than a pipe holds.
                int most = random.Next(10) switch { 0 => 1_000_000, < 4 => 50_000, _ => 500 };
                SendAll(socket, pattern.Take((int)Math.Min(random.Next(1, most), length - pattern.Position)));
            }

            socket.Shutdown(SocketShutdown.Send);
        });

    [Theory]
    [InlineData(100, 1)]
    [InlineData(10_000, 3)]
    [InlineData(700_000, 2)]
    [InlineData(3_000_000, 1)]
    public void Urgent_data_neither_stalls_nor_breaks_the_stream(int between, int marks)
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        for (int i = 0; i < 10; i++)
        {
            TaskCompletionSource<byte[]> received = new();
            using TcpService service = new(bed.Container, Loopback(80), async socket =>
            {
                MemoryStream all = new();
                byte[] buffer = new byte[65536];
                int count;
                while ((count = await socket.ReceiveAsync(buffer)) > 0)
                    all.Write(buffer, 0, count);
                received.SetResult(all.ToArray());
            });
            using (Socket client = bed.Host.Connect(Port))
            {
                for (int mark = 0; mark < marks; mark++)
                {
                    SendAll(client, Enumerable.Repeat((byte)'.', between).ToArray());
                    client.Send("!"u8, SocketFlags.OutOfBand);
                    SendAll(client, Enumerable.Repeat((byte)',', between).ToArray());
                }
            }

            // Urgent bytes themselves may come in their place or be left out, as any receiver may choose.
            byte[] got = [.. Within(received.Task).Where(b => b != '!')];
            Assert.Equal(2 * marks * between, got.Length);
            for (int at = 0; at < got.Length; at++)
                Assert.Equal(at / between % 2 == 0 ? '.' : ',', (char)got[at]);
        }
    }

    [Fact]
    public void Urgent_data_of_the_target_does_not_stall_an_exchange()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        using TcpService service = new(bed.Container, Loopback(80), async socket =>
        {
            byte[] buffer = new byte[100];
            int count;
            while ((count = await socket.ReceiveAsync(buffer)) > 0)
            {
                socket.Send("!"u8, SocketFlags.OutOfBand);
                await socket.SendAsync(buffer.AsMemory(0, count));
            }
        });
        using Socket client = bed.Host.Connect(Port);
        client.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.OutOfBandInline, true);
        for (int i = 0; i < 200; i++)
        {
            client.Send("x"u8);
            while (client.ReadExactly(1)[0] != 'x')
            {
            }
        }
    }

    [Fact]
    public void A_target_that_does_not_answer_is_given_up_after_the_connect_timeout()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("--connect-timeout", "0.2", "-t", "8080:80");
        // A listener whose queue is full answers no SYN.
        using Socket full = bed.Container.NewSocket(AddressFamily.InterNetwork, SocketType.Stream);
        full.Bind(Loopback(80));
        full.Listen(0);
        List<Socket> clients = [];
        for (int i = 0; i < 4; i++)
            clients.Add(bed.Host.Connect(Port));
        Assert.Equal(SocketError.ConnectionReset, Assert.Throws<SocketException>(clients[^1].ReadToEnd).SocketErrorCode);
        clients.ForEach(client => client.Dispose());
    }

    [Fact]
    public void Connections_that_move_nothing_are_reset_after_the_idle_timeout_and_others_are_not()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("--idle-timeout", "1", "-t", "8080:80");
        using TcpService service = TcpService.Echo(bed.Container, 80);
        using ExchangeLoop busy = new(bed.Host.Connect(Port));
        using Socket idle = bed.Host.Connect(Port);
        Assert.Equal("once", idle.Exchange("once"));
        Assert.Equal(SocketError.ConnectionReset, Assert.Throws<SocketException>(idle.ReadToEnd).SocketErrorCode);
        busy.WaitForMore(100);
    }

    [Fact]
    public void Last_bytes_of_a_long_message_come_although_the_stream_goes_on()
    {
        const int Message = (100 << 20) + 1;
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        using TcpService service = new(bed.Container, Loopback(80), async socket =>
        {
            byte[] buffer = new byte[1 << 20];
            while (true)
            {
                for (int left = Message; left > 0;)
                {
                    int count = await socket.ReceiveAsync(buffer.AsMemory(0, Math.Min(left, buffer.Length)));
                    if (count == 0)
                        return;
                    left -= count;
                }

                await socket.SendAsync("."u8.ToArray());
            }
        });
        using Socket client = bed.Host.Connect(Port);
        byte[] message = new byte[Message];
        for (int i = 0; i < 3; i++)
        {
            SendAll(client, message);
            Assert.Equal((byte)'.', client.ReadExactly(1)[0]);
        }
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_long_stream_that_stalls_wakes_nobody(bool ended)
    {
        const int Length = 100 << 20;
        using Testbed bed = new();
        // Else it looks whether its container is still there whenever something is mounted, as other tests do all the time.
        using RunningForwarder pesto = bed.Serve("--no-netns-quit", "-t", "8080:80");
        using TcpService service = new(bed.Container, Loopback(80), async socket =>
        {
            byte[] buffer = new byte[1 << 20];
            for (int left = Length; left > 0;)
                left -= await socket.ReceiveAsync(buffer.AsMemory(0, Math.Min(left, buffer.Length)));
            await socket.SendAsync("."u8.ToArray());
            await Task.Delay(Timeout.Infinite);
        });
        using Socket client = bed.Host.Connect(Port);
        SendAll(client, new byte[Length]);
        Assert.Equal((byte)'.', client.ReadExactly(1)[0]);
        if (ended)
        {
            client.Shutdown(SocketShutdown.Send);
        }
        else
        {
            // As much more as anybody takes.
            client.Blocking = false;
            byte[] more = new byte[1 << 20];
            for (int refused = 0; refused < 20; refused++)
            {
                while (client.Send(more, SocketFlags.None, out SocketError error) > 0 && error == SocketError.Success)
                    refused = 0;
                Thread.Sleep(10);
            }
        }

        int before = Switches(pesto);
        Thread.Sleep(1000);
        Assert.InRange(Switches(pesto) - before, 0, 20);

        static int Switches(RunningForwarder pesto) =>
            int.Parse(File.ReadLines($"/proc/{pesto.Process.Id}/status").Single(line => line.StartsWith("voluntary_ctxt_switches:")).Split(':')[1]);
    }

    [Fact]
    public void An_urgent_byte_that_comes_alone_goes_on_at_once()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        using TcpService service = new(bed.Container, Loopback(80), async socket =>
        {
            socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.OutOfBandInline, true);
            byte[] buffer = new byte[100];
            int count;
            while ((count = await socket.ReceiveAsync(buffer)) > 0)
                await socket.SendAsync(buffer.AsMemory(0, count));
        });
        using Socket client = bed.Host.Connect(Port);
        Assert.Equal("hello", client.Exchange("hello"));
        for (int i = 0; i < 3; i++)
        {
            client.Send("!"u8, SocketFlags.OutOfBand);
            Assert.Equal((byte)'!', client.ReadExactly(1)[0]);
        }
    }

    [Fact]
    public void Half_closed_connections_are_reset_after_their_timeout_and_idle_ones_are_not()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("--half-closed-timeout", "1", "-t", "8080:80");
        using TcpService service = new(bed.Container, Loopback(80), async socket =>
        {
            while (await socket.ReceiveAsync(new byte[100]) > 0)
                await socket.SendAsync("once"u8.ToArray());
            await Task.Delay(Timeout.Infinite);
        });
        using Socket idle = bed.Host.Connect(Port), half = bed.Host.Connect(Port);
        Assert.Equal("once", idle.Exchange("once"));
        Assert.Equal("once", half.Exchange("once"));
        half.Shutdown(SocketShutdown.Send);
        Assert.Equal(SocketError.ConnectionReset, Assert.Throws<SocketException>(half.ReadToEnd).SocketErrorCode);
        Assert.Equal("once", idle.Exchange("once"));
    }

    [Theory]
    [Needs("nft")]
    [InlineData(true)]
    [InlineData(false)]
    public void Keepalive_notices_a_peer_that_vanished(bool client)
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("--keepalive", "1", "-t", "8080:80");
        using TcpService service = TcpService.Echo(bed.Container, 80);
        using Socket first = bed.Host.Connect(Port);
        Assert.Equal("once", first.Exchange("once"));
        Assert.Equal(1, pesto.Statistic("tcp_open"));
        // From now on nothing of it arrives, not even the end.
        new Command("nft", $"add table inet t; add chain inet t c {{ type filter hook input priority 0; }}; add rule inet t c tcp {(client ? "dport 8080" : "sport 80")} drop")
            .In(client ? bed.Host : bed.Container).RunOrFail();
        Eventually.True(() => pesto.Statistic("tcp_open") == 0, "the connection is given up");
    }

    static System.Net.IPEndPoint Loopback(int port) => new(System.Net.IPAddress.Loopback, port);

    static byte[] Encode(string text) => System.Text.Encoding.UTF8.GetBytes(text);

    static T Within<T>(Task<T> task)
    {
        Eventually.True(() => task.IsCompleted, "the other side is done");
        return task.GetAwaiter().GetResult();
    }

    static void SendAll(Socket socket, byte[] bytes)
    {
        for (int sent = 0; sent < bytes.Length;)
            sent += socket.Send(bytes.AsSpan(sent));
    }

    static async Task<int> CountToEnd(Socket socket)
    {
        byte[] buffer = new byte[65536];
        int all = 0;
        int count;
        while ((count = await socket.ReceiveAsync(buffer)) > 0)
            all += count;
        return all;
    }

    /// <summary>Notes how a connection ended.</summary>
    static async Task End(Socket socket, ConcurrentQueue<SocketError> ends)
    {
        try
        {
            await CountToEnd(socket);
            ends.Enqueue(SocketError.Success);
        }
        catch (SocketException e)
        {
            ends.Enqueue(e.SocketErrorCode);
        }
    }

    static void CheckToEnd(Socket socket, Pattern pattern, long length)
    {
        byte[] buffer = new byte[100_000];
        int count;
        while ((count = socket.Receive(buffer)) > 0)
            pattern.Check(buffer.AsSpan(0, count));
        Assert.Equal(length, pattern.Position);
    }
}
