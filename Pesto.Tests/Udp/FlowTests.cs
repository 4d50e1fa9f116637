using System.Net;
using System.Net.Sockets;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Udp;

/// <summary>Flows: each client has its own, they expire, and when there are too many the one that has been idle longest makes room.</summary>
public sealed class FlowTests
{
    [Fact]
    public void A_flow_that_has_no_answer_expires()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-u", "5353:53", "--udp-timeout", "0.3", "--udp-stream-timeout", "86400");
        using Socket silent = bed.Container.NewSocket(AddressFamily.InterNetwork, SocketType.Dgram);
        silent.Bind(new IPEndPoint(IPAddress.Loopback, 53));
        using Socket client = bed.Host.ConnectUdp(5353);
        client.Send([1]);
        Eventually.Equal(1, () => pesto.Statistic("udp_total"));
        Eventually.Equal(0, () => pesto.Statistic("udp_open"));
    }

    [Fact]
    public void A_flow_of_which_both_sides_spoke_has_a_time_out_of_its_own()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-u", "5353:53", "-u", "5454:54", "--udp-timeout", "0.3", "--udp-stream-timeout", "86400");
        using UdpEcho echo = new(bed.Container, 53);
        using Socket silent = bed.Container.NewSocket(AddressFamily.InterNetwork, SocketType.Dgram);
        silent.Bind(new IPEndPoint(IPAddress.Loopback, 54));
        using Socket answered = bed.Host.ConnectUdp(5353), unanswered = bed.Host.ConnectUdp(5454);
        answered.ReceiveTimeout = 1000;
        Eventually.True(() => Answers(answered), "an answer before the flow expires, however busy this machine is");
        long total = pesto.Statistic("udp_total");
        unanswered.Send([1]);
        Eventually.Equal(total + 1, () => pesto.Statistic("udp_total"));
        Eventually.Equal(1, () => pesto.Statistic("udp_open"));
        answered.ReceiveTimeout = 20_000;
        Assert.True(Answers(answered));
        Assert.Equal(total + 1, pesto.Statistic("udp_total"));

        static bool Answers(Socket client)
        {
            client.Send([1]);
            try
            {
                return client.Receive(new byte[1]) == 1;
            }
            catch (SocketException e) when (e.SocketErrorCode == SocketError.TimedOut)
            {
                return false;
            }
        }
    }

    [Fact]
    public void A_flow_of_which_both_sides_spoke_expires_too()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-u", "5353:53", "--udp-timeout", "86400", "--udp-stream-timeout", "0.3");
        using UdpEcho echo = new(bed.Container, 53);
        using Socket client = bed.Host.ConnectUdp(5353);
        Assert.Equal("question", client.Exchange("question"));
        Eventually.Equal(0, () => pesto.Statistic("udp_open"));
        Assert.Equal("again", client.Exchange("again"));
        Assert.Equal(2, pesto.Statistic("udp_total"));
    }

    [Fact]
    public void Two_thousand_clients_at_once_each_get_their_own_answers()
    {
        const int Clients = 2000, Rounds = 3;
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-u", "5353:53", "--udp-stream-timeout", "3");
        using UdpEcho echo = new(bed.Container, 53);
        Socket[] clients = bed.Host.Run(() => Enumerable.Range(0, Clients).Select(_ => Connected(5353)).ToArray());
        for (int round = 0; round < Rounds; round++)
        {
            // In parts, since the echo's own socket holds only so many.
            for (int first = 0; first < Clients; first += 100)
            {
                for (int i = first; i < first + 100; i++)
                    clients[i].Send(BitConverter.GetBytes((round * Clients) + i));
                for (int i = first; i < first + 100; i++)
                    Assert.Equal((round * Clients) + i, BitConverter.ToInt32(clients[i].ReadExactly(4)));
            }
        }

        // More if this machine is so slow that some expired between two rounds.
        Assert.InRange(pesto.Statistic("udp_total"), Clients, Clients * Rounds);
        Assert.Equal(0, pesto.Statistic("udp_dropped"));
        foreach (Socket client in clients)
            client.Dispose();
        Eventually.Equal(0, () => pesto.Statistic("udp_open"));
    }

    [Fact]
    public void Twenty_thousand_clients_in_turn_are_served_in_the_same_memory()
    {
        const int Clients = 20_000, AtOnce = 20;
        using Testbed bed = new();
        // More room than a thousand flows need is not to be had here, so that most of them have to expire or make room.
        using RunningForwarder pesto = bed.Serve("-u", "5353:53", "--udp-stream-timeout", "3", "--udp-max-flows", "1000");
        using UdpEcho echo = new(bed.Container, 53);
        Run(Clients / 4);
        long warm = Resident(pesto);
        Run(Clients - (Clients / 4));
        Assert.InRange(Resident(pesto), 0, warm + (256 * 1024));
        // Some clients have the port of an earlier one whose flow is still there.
        Assert.InRange(pesto.Statistic("udp_total"), Clients / 2, Clients);
        Assert.Equal(0, pesto.Statistic("udp_dropped"));
        Eventually.Equal(0, () => pesto.Statistic("udp_open"));

        void Run(int count) => bed.Host.Run(() =>
        {
            for (int first = 0; first < count; first += AtOnce)
            {
                Socket[] clients = [.. Enumerable.Range(0, AtOnce).Select(_ => Connected(5353))];
                for (int i = 0; i < AtOnce; i++)
                    clients[i].Send(BitConverter.GetBytes(first + i));
                for (int i = 0; i < AtOnce; i++)
                {
                    Assert.Equal(first + i, BitConverter.ToInt32(clients[i].ReadExactly(4)));
                    clients[i].Dispose();
                }
            }

            return true;
        });
    }

    [Fact]
    public void The_flow_that_has_been_idle_longest_makes_room()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-u", "5353:53", "--udp-max-flows", "4");
        using UdpEcho echo = new(bed.Container, 53);
        Socket[] clients = [.. Enumerable.Range(0, 5).Select(_ => bed.Host.ConnectUdp(5353))];
        for (int i = 0; i < 4; i++)
            AskLater(clients[i]);
        // The first is not the one that has been idle longest any more.
        AskLater(clients[0]);
        Assert.Equal("question", clients[4].Exchange("question"));
        Assert.Equal((4, 5, 1), Flows(pesto));
        foreach (int kept in new[] { 0, 2, 3, 4 })
            AskLater(clients[kept]);
        Assert.Equal((4, 5, 1), Flows(pesto));
        AskLater(clients[1]);
        Assert.Equal((4, 6, 2), Flows(pesto));
        Assert.Single(pesto.Process.Errors.Split('\n'), line => line.Contains("limit reached: UDP flows"));

        // Which of two was idle longer is known to the millisecond.
        static void AskLater(Socket client)
        {
            Thread.Sleep(3);
            Assert.Equal("question", client.Exchange("question"));
        }
    }

    [Fact]
    public void Without_descriptors_new_flows_take_the_place_of_old_ones()
    {
        using Testbed bed = new();
        string control = bed.Folder["control"];
        Command limited = new("prlimit", "--nofile=200:200", Programs.Pesto, "serve", "-f", "-c", control, "--netns", bed.Container.Path, "-u", "5353:53", "--udp-max-flows", "1000");
        using RunningForwarder pesto = new(bed, control, limited.In(bed.Host).Start());
        using UdpEcho echo = new(bed.Container, 53);
        Socket[] clients = bed.Host.Run(() => Enumerable.Range(0, 500).Select(_ => Connected(5353)).ToArray());
        foreach (Socket client in clients)
            Assert.Equal("question", client.Exchange("question"));
        Assert.Equal(500, pesto.Statistic("udp_total"));
        Assert.NotEqual(0, pesto.Statistic("udp_shed"));
        Assert.Single(pesto.Process.Errors.Split('\n'), line => line.Contains("limit reached: UDP flows: Too many open files"));
        foreach (Socket client in clients)
            client.Dispose();
    }

    [Fact]
    public void A_target_that_nobody_listens_on_ends_the_flow()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-u", "5353:53");
        using Socket client = bed.Host.ConnectUdp(5353);
        client.Send([1]);
        Eventually.Equal(1, () => pesto.Statistic("udp_refused"));
        Assert.Equal(0, pesto.Statistic("udp_open"));
        using UdpEcho echo = new(bed.Container, 53);
        using Socket other = bed.Host.ConnectUdp(5353);
        Assert.Equal("question", other.Exchange("question"));
    }

    [Fact]
    public void A_hundred_thousand_exchanges_allocate_nothing()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-u", "5353:53");
        using UdpEcho echo = new(bed.Container, 53);
        Socket[] clients = bed.Host.Run(() => Enumerable.Range(0, 50).Select(_ => Connected(5353)).ToArray());
        Exchange(1_000);
        _ = pesto.Statistics();
        long before = pesto.Statistic("gc_bytes");
        Exchange(100_000);
        Assert.Equal(before, pesto.Statistic("gc_bytes"));
        Assert.Equal(101_000, pesto.Statistic("datagrams_out"));

        void Exchange(int count)
        {
            byte[] buffer = new byte[64];
            for (int done = 0; done < count; done += clients.Length)
            {
                foreach (Socket client in clients)
                    client.Send(buffer);
                foreach (Socket client in clients)
                    Assert.Equal(64, client.Receive(buffer));
            }
        }
    }

    static (long Open, long Total, long Shed) Flows(RunningForwarder pesto)
    {
        Dictionary<string, long> all = pesto.Statistics();
        return (all["udp_open"], all["udp_total"], all["udp_shed"]);
    }

    /// <summary>In bytes.</summary>
    static long Resident(RunningForwarder pesto) =>
        1024 * long.Parse(File.ReadLines($"/proc/{pesto.Process.Id}/status").Single(line => line.StartsWith("VmRSS:")).Split(' ', StringSplitOptions.RemoveEmptyEntries)[1]);

    /// <summary>For threads that are in the right namespace already.</summary>
    static Socket Connected(int port)
    {
        Socket socket = new(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Unspecified) { ReceiveTimeout = 20_000 };
        socket.Connect(IPAddress.Loopback, port);
        return socket;
    }
}
