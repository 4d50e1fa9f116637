using System.Net;
using System.Net.Sockets;
using Pesto.Linux;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Server;

/// <summary>What connections cost, and what happens when there is no more to be had.</summary>
[Collection(Alone.Name)]
public sealed class LimitTests
{
    const long Megabyte = 1_000_000;

    [Fact]
    public void An_idle_connection_costs_two_descriptors()
    {
        const int Connections = 3000;
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        using TcpService service = TcpService.Echo(bed.Container, 80);
        // Who counts for us has finished starting.
        Assert.Equal(0, pesto.Statistic("tcp_open"));
        int before = pesto.Process.Descriptors;
        using (BackgroundProcess clients = Program.Connections(bed.Host, 8080, Connections))
        {
            Assert.Equal(Connections, pesto.Statistic("tcp_open"));
            // Pipes are the forwarder's, not a connection's: few, however many connections there are.
            long pipes = pesto.Statistic("pipes");
            Assert.InRange(pipes, 0, 4);
            Assert.InRange(pesto.Process.Descriptors - before - 2 * Connections, 0, 2 * pipes + SparePool);
        }

        Eventually.Equal(0L, () => pesto.Statistic("tcp_open"));
        Eventually.True(() => pesto.Process.Descriptors - before <= 2 * pesto.Statistic("pipes") + SparePool, "their descriptors are closed");
    }

    /// <summary>Unconnected sockets that a forwarder may keep at hand.</summary>
    const long SparePool = 64;

    [Fact]
    public void Nine_thousand_connections_work_at_once()
    {
        const int Connections = 9000;
        Assert.SkipWhen(Processes.RaiseDescriptorLimit() < 20_000, "needs 20,000 descriptors a process");
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        using TcpService service = TcpService.Echo(bed.Container, 80);
        using BackgroundProcess clients = Program.Connections(bed.Host, 8080, Connections);
        Program.AskAgain(clients, Connections);
        Assert.Equal(Connections, service.Open);
        Dictionary<string, long> counters = pesto.Statistics();
        Assert.Equal((Connections, 0, 0), (counters["tcp_open"], counters["refused"], counters["shed"]));
        Assert.Equal(0, pesto.Pesto("-A", "-t", "9000").ExitStatus);
    }

    [Fact]
    public void A_target_without_the_clients_family_is_refused_and_no_limit_that_others_have_to_wait_for()
    {
        using Testbed bed = new();
        bed.Container.Run(() =>
        {
            File.WriteAllText("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
            return 0;
        });
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        using TcpService service = TcpService.Echo(bed.Container, 80);
        for (int i = 0; i < 10; i++)
        {
            using Socket client = bed.Host.Connect(new IPEndPoint(IPAddress.IPv6Loopback, 8080));
            Assert.Equal(SocketError.ConnectionReset, Assert.Throws<SocketException>(() => client.Receive(new byte[1])).SocketErrorCode);
        }

        using (Socket client = bed.Host.Connect(8080))
            Assert.Equal("served", client.Exchange("served"));
        Dictionary<string, long> counters = pesto.Statistics();
        Assert.Equal((10, 0), (counters["refused"], counters["shed"]));
        Assert.DoesNotContain("limit reached", pesto.Process.Errors);
    }

    [Fact]
    public void Out_of_descriptors_new_connections_wait_and_nobody_is_reset()
    {
        const int Descriptors = 256;
        using Testbed bed = new();
        string control = bed.Folder["control"];
        Command limited = new Command("prlimit", $"--nofile={Descriptors}", Programs.Pesto, "serve", "-f", "-c", control, "--netns", bed.Container.Path, "-t", "8080:80").In(bed.Host);
        using RunningForwarder pesto = new(bed, control, limited.Start());
        using TcpService service = TcpService.Echo(bed.Container, 80);
        List<Socket> clients = [];
        for (int i = 0; i < Descriptors; i++)
            clients.Add(bed.Host.Connect(8080));
        Eventually.True(() => pesto.Process.Errors.Contains("limit reached"), "it says so");
        long served = pesto.Statistic("tcp_open");
        Assert.InRange(served, 32, Descriptors / 2);

        // Those that are served go on, the tables can be looked at and changed, and nothing is said again and again.
        for (int i = 0; i < served; i++)
            Assert.Equal("served", clients[i].Exchange("served"));
        Assert.Equal(0, pesto.Pesto("-A", "-t", "9000-9003").ExitStatus);
        Assert.Equal(0, pesto.Pesto("-D", "-t", "9000-9003").ExitStatus);
        Assert.Equal(2, pesto.Process.Errors.Split("limit reached").Length);

        // Each that ends makes room for one that waits, in order.
        for (int i = 0; i < clients.Count; i++)
        {
            Assert.Equal("its turn", clients[i].Exchange("its turn"));
            clients[i].Dispose();
        }

        Dictionary<string, long> counters = pesto.Statistics();
        Assert.Equal((Descriptors, 0, 0), (counters["tcp_total"], counters["refused"], counters["shed"]));
    }

    [Fact]
    public void Out_of_descriptors_as_many_are_served_after_streams_as_before()
    {
        const int Descriptors = 256, Message = 4 << 20;
        using Testbed bed = new();
        string control = bed.Folder["control"];
        Command limited = new Command("prlimit", $"--nofile={Descriptors}", Programs.Pesto, "serve", "-f", "-c", control, "--netns", bed.Container.Path, "-t", "8080:80").In(bed.Host);
        using RunningForwarder pesto = new(bed, control, limited.Start());
        using TcpService service = TcpService.Echo(bed.Container, 80);
        long before = ServedAtOnce();
        AtOnce.Run(30, _ =>
        {
            using Socket client = bed.Host.Connect(8080);
            Thread sending = new(() =>
            {
                for (int sent = 0; sent < Message;)
                    sent += client.Send(new byte[Message - sent]);
            });
            sending.Start();
            client.ReadExactly(Message);
            sending.Join();
        });
        Assert.NotEqual(0, pesto.Statistic("pipes"));
        Assert.Equal(before, ServedAtOnce());

        long ServedAtOnce()
        {
            Socket[] clients = [.. Enumerable.Range(0, Descriptors).Select(_ => bed.Host.Connect(8080))];
            long served = 0;
            Eventually.True(() => served == (served = pesto.Statistic("tcp_open")) && served > 1, "as many are served as can be");
            foreach (Socket client in clients)
                client.Reset();
            Eventually.Equal(0, () => pesto.Statistic("tcp_open"));
            return served;
        }
    }

    [Fact]
    public void Out_of_descriptors_streams_go_on_without_pipes()
    {
        using Testbed bed = new();
        string control = bed.Folder["control"];
        Command limited = new Command("prlimit", "--nofile=200", Programs.Pesto, "serve", "-f", "-c", control, "--netns", bed.Container.Path, "-t", "8080:80").In(bed.Host);
        using RunningForwarder pesto = new(bed, control, limited.Start());
        using TcpService service = TcpService.Echo(bed.Container, 80);
        List<Socket> idle = [];
        for (int i = 0; i < 20; i++)
            idle.Add(bed.Host.Connect(8080));
        AtOnce.Run(16, seed =>
        {
            using Socket client = bed.Host.Connect(8080);
            byte[] bytes = new Pattern(seed).Take(4_000_000);
            AtOnce.Run(
                () => new Pattern(seed).Check(client.ReadExactly(bytes.Length)),
                () =>
                {
                    for (int sent = 0; sent < bytes.Length;)
                        sent += client.Send(bytes.AsSpan(sent));
                });
        });
        idle.ForEach(socket => socket.Dispose());
    }

    [Fact]
    public void A_hundred_thousand_exchanges_and_a_thousand_connections_allocate_nothing()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80", "-t", "127.0.0.1/9000:80");
        // Each with a thread of its own, which answers sooner than one that is borrowed.
        using TcpService service = new(bed.Container, new(System.Net.IPAddress.Loopback, 80), socket => Task.Factory.StartNew(() => Echo(socket), TaskCreationOptions.LongRunning));
        Work(bed, connections: 50, exchanges: 1000);
        _ = pesto.Statistic("gc_bytes");
        long before = pesto.Statistic("gc_bytes");
        Work(bed, connections: 1000, exchanges: 100_000);
        Assert.Equal(before, pesto.Statistic("gc_bytes"));
        Assert.True(pesto.Statistic("bytes_in") > 100_000);
    }

    static void Echo(Socket socket)
    {
        byte[] buffer = new byte[65536];
        int count;
        while ((count = socket.Receive(buffer)) > 0)
        {
            for (int sent = 0; sent < count;)
                sent += socket.Send(buffer.AsSpan(sent, count - sent));
        }
    }

    static void Work(Testbed bed, int connections, int exchanges) => AtOnce.Run(2, _ => bed.Host.Run(() =>
    {
        using Socket busy = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        busy.Connect("127.0.0.1", 8080);
        byte[] question = new byte[100];
        for (int i = 0; i < exchanges / 2; i++)
            busy.Exchange(question);
        byte[] large = new byte[100_000];
        for (int i = 0; i < connections / 2; i++)
        {
            using Socket socket = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            socket.Connect("127.0.0.1", 9000);
            socket.Exchange(i % 10 == 0 ? large : question);
        }

        return true;
    }));

    [Fact]
    public void Idle_it_takes_six_megabytes_at_most()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        Assert.InRange(pesto.Process.Resident, 0, 6 * Megabyte);
    }

    [Fact]
    public void Work_does_not_make_it_grow()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80", "-t", "127.0.0.1/9000:80");
        using TcpService service = TcpService.Echo(bed.Container, 80);
        Work(bed, connections: 200, exchanges: 1000);
        long before = pesto.Process.Resident;
        Work(bed, connections: 1000, exchanges: 1000);
        Assert.InRange(pesto.Process.Resident - before, long.MinValue, Megabyte / 10);
    }
}
