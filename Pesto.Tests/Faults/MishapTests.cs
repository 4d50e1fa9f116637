using System.Net;
using System.Net.Sockets;
using Mono.Unix.Native;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Faults;

/// <summary>What happens to processes and machines, and is nobody's mistake.</summary>
public sealed class MishapTests
{
    [Fact]
    public void Stopped_and_continued_it_goes_on_where_it_was()
    {
        using Testbed bed = new();
        using TcpService service = TcpService.Echo(bed.Container, 80);
        using UdpEcho datagrams = new(bed.Container, 53);
        using RunningForwarder pesto = bed.Serve("-t", "8080:80", "-u", "5353:53", "--conf-timeout", "1");
        using ExchangeLoop exchanges = new(bed.Host.Connect(8080));
        using ConnectLoop connections = new(bed.Host, 8080);
        using ControlClient client = new(pesto.Control);
        client.ReadListing();
        exchanges.WaitForMore(10);
        connections.WaitForMore(10);
        for (int i = 0; i < 3; i++)
        {
            pesto.Process.Signal(Signum.SIGSTOP);
            Eventually.True(() => State(pesto.Process.Id) == 'T', "it is stopped");
            using Socket question = bed.Host.NewSocket(AddressFamily.InterNetwork, SocketType.Dgram);
            question.ReceiveTimeout = 20_000;
            question.SendTo("ping"u8, new IPEndPoint(IPAddress.Loopback, 5353));
            using Socket late = bed.Host.Connect(8080);
            // Longer than its clients' time-out.
            Thread.Sleep(1100);
            pesto.Process.Signal(Signum.SIGCONT);
            Assert.Equal("ping", late.Exchange("ping"));
            Assert.Equal(4, question.Receive(new byte[10]));
            exchanges.WaitForMore(10);
            connections.WaitForMore(10);
        }

        // Who waited all the time had his second, as far as it could see.
        client.WaitForClose();
        Assert.Equal(0, pesto.Pesto("-A", "-t", "8081:81").ExitStatus);
        Assert.Null(exchanges.Failure);
        Assert.Equal("", connections.Failures);
    }

    [Theory]
    [InlineData(86_400 * 365)]
    [InlineData(-30)]
    public void Clocks_that_jump_end_no_connection_and_stall_nothing(long seconds)
    {
        using Testbed bed = new();
        using TcpService service = TcpService.Echo(bed.Container, 80);
        using UdpEcho datagrams = new(bed.Container, 53);
        using Preload preload = new();
        using RunningForwarder pesto = bed.ServeBehind(preload.Before, "-t", "8080:80", "-u", "5353:53", "--udp-timeout", "1", "--udp-stream-timeout", "1");
        using ExchangeLoop exchanges = new(bed.Host.Connect(8080));
        exchanges.WaitForMore(10);
        preload.SetClocksAhead(seconds);
        exchanges.WaitForMore(10);
        using Socket question = bed.Host.NewSocket(AddressFamily.InterNetwork, SocketType.Dgram);
        question.ReceiveTimeout = 20_000;
        question.SendTo("ping"u8, new IPEndPoint(IPAddress.Loopback, 5353));
        Assert.Equal(4, question.Receive(new byte[10]));
        Assert.Equal(0, pesto.Pesto("-A", "-t", "8081:80").ExitStatus);
        Assert.True(bed.Host.Accepts(8081));
        preload.SetClocksAhead(0);
        exchanges.WaitForMore(10);
        Assert.Equal(0, pesto.Pesto("-D", "-t", "8081:80").ExitStatus);
        Assert.Null(exchanges.Failure);
    }

    [Fact]
    public void When_the_first_process_of_the_container_is_killed_it_ends_with_status_0()
    {
        Account.NeedOrdinary();
        using Testbed bed = new(Account.Ordinary);
        // The first of a process namespace takes all the others with it.
        Command holder = new("unshare", "-Urn", "--pid", "--fork", "--kill-child", "sh", "-c", "ip link set lo up; sleep 1000 & wait");
        using BackgroundProcess container = holder.In(bed.Host).As(Account.Ordinary).Start();
        int init = 0;
        Eventually.True(() => (init = ChildOf(container.Id)) != 0 && ChildOf(init) != 0, "the container runs");
        using RunningForwarder pesto = bed.ServeInto([$"{init}"], "-t", "8080:80");
        Assert.True(bed.Host.Accepts(8080));
        Syscall.kill(init, Signum.SIGKILL);
        Finished finished = pesto.Process.WaitForEnd(TimeSpan.FromSeconds(10));
        Assert.Equal(0, finished.ExitStatus);
        Assert.Contains("is gone", finished.Errors);
        Assert.False(File.Exists(pesto.Control));
    }

    [Theory]
    [Needs("socat")]
    [InlineData(true)]
    [InlineData(false)]
    public void A_client_or_a_target_that_is_killed_ends_its_own_connections_only(bool client)
    {
        using Testbed bed = new();
        using TcpService service = TcpService.Echo(bed.Container, 80);
        using RunningForwarder pesto = bed.Serve("-t", "8080:80", "-t", "8081:81");
        using ExchangeLoop others = new(bed.Host.Connect(8080));
        Command victim = client
            ? new Command("socat", "-u", "/dev/zero", "TCP:127.0.0.1:8081").In(bed.Host)
            : new Command("socat", "-u", "/dev/zero", "TCP-LISTEN:81").In(bed.Container);
        using TcpService? sink = client ? new(bed.Container, new IPEndPoint(IPAddress.Loopback, 81), Swallow) : null;
        using BackgroundProcess killed = victim.Start();
        Socket? source = null;
        if (!client)
        {
            Eventually.True(() => new Command("ss", "-Hltn", "sport = :81").In(bed.Container).RunOrFail() != "", "socat listens");
            source = bed.Host.Connect(8081);
        }

        Eventually.True(() => pesto.Statistic("bytes_in") + pesto.Statistic("bytes_out") > 100_000, "it streams");
        killed.Signal(Signum.SIGKILL);
        if (source != null)
        {
            // What was sent is there, then the end of it all, orderly or not.
            byte[] buffer = new byte[1 << 20];
            try
            {
                while (source.Receive(buffer) > 0)
                {
                }
            }
            catch (SocketException e)
            {
                Assert.Equal(SocketError.ConnectionReset, e.SocketErrorCode);
            }

            source.Dispose();
        }

        Eventually.Equal(1, () => pesto.Statistic("tcp_open"));
        others.WaitForMore(10);
        Assert.Null(others.Failure);
    }

    [Fact]
    public void A_log_on_a_full_disk_holds_up_nothing()
    {
        using Testbed bed = new();
        using TcpService service = TcpService.Echo(bed.Container, 80);
        using RunningForwarder pesto = bed.Serve("-l", "/dev/full", "-d", "-t", "8080:80");
        using ExchangeLoop exchanges = new(bed.Host.Connect(8080));
        for (int i = 0; i < 100; i++)
            ControlClient.Replace(pesto.Control, ControlClient.Tcp("127.0.0.1", (ushort)(9000 + (i % 2)), 80));
        exchanges.WaitForMore(10);
        Assert.Null(exchanges.Failure);
        pesto.Process.Signal(Signum.SIGTERM);
        Assert.Equal(0, pesto.Process.WaitForEnd(TimeSpan.FromSeconds(10)).ExitStatus);
    }

    static async Task Swallow(Socket socket)
    {
        byte[] buffer = new byte[1 << 20];
        while (await socket.ReceiveAsync(buffer) > 0)
        {
        }
    }

    static char State(int process)
    {
        string status = File.ReadAllText($"/proc/{process}/stat");
        return status[status.LastIndexOf(')') + 2];
    }

    static int ChildOf(int process)
    {
        string children = File.ReadAllText($"/proc/{process}/task/{process}/children");
        return children == "" ? 0 : int.Parse(children.Split(' ')[0]);
    }
}
