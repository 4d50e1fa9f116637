using System.Net;
using System.Net.Sockets;
using System.Text.RegularExpressions;
using Mono.Unix.Native;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Scan;

/// <summary>"auto" rules listen where something listens in the target, and nowhere else.</summary>
public sealed class AutoTests
{
    /// <summary>A service counts as gone when two scans have not found it; one scan may have been under way when it went.</summary>
    const int ScansUntilGone = 3;

    /// <summary>One scan may have been under way when a service came.</summary>
    const int ScansUntilThere = 2;

    [Fact]
    public void What_listens_already_is_reachable_at_once()
    {
        using Testbed bed = new();
        using TcpService inside = TcpService.Says(bed.Container, 80, "inside"), outside = TcpService.Says(bed.Host, 5432, "outside");
        using RunningForwarder pesto = bed.Serve("-t", "auto", "-T", "auto");
        using Socket inward = bed.Host.Connect(80), outward = bed.Container.Connect(5432);
        Assert.Equal("inside", inward.ReadToEnd());
        Assert.Equal("outside", outward.ReadToEnd());
    }

    [Fact]
    public void What_listens_already_is_reachable_when_a_commit_is_over()
    {
        using Testbed bed = new();
        using TcpService inside = TcpService.Says(bed.Container, 80, "inside");
        using RunningForwarder pesto = bed.Serve();
        Assert.False(bed.Host.Accepts(80));
        Succeed(pesto.Pesto("-t", "auto"));
        using Socket client = bed.Host.Connect(80);
        Assert.Equal("inside", client.ReadToEnd());
        Succeed(pesto.Pesto("-C", "HOST"));
        Assert.False(bed.Host.Accepts(80));
    }

    [Theory]
    [InlineData("-t", "auto")]
    [InlineData("-T", "auto")]
    public void A_service_comes_and_goes_within_a_few_scans(params string[] options)
    {
        using Testbed bed = new();
        (NetworkNamespace client, NetworkNamespace target) = options[0] == "-t" ? (bed.Host, bed.Container) : (bed.Container, bed.Host);
        using RunningForwarder pesto = bed.Serve(options);
        for (int port = 80; port < 82; port++)
        {
            using (TcpService service = TcpService.Says(target, port, "there"))
            {
                Within(ScansUntilThere, pesto, () => client.Accepts(port), "the service is reachable");
                using Socket socket = client.Connect(port);
                Assert.Equal("there", socket.ReadToEnd());
            }

            Within(ScansUntilGone, pesto, () => Listening(client).Length == 0, "the service is gone");
        }
    }

    [Fact]
    public void Scans_are_at_most_a_second_apart()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "auto");
        long before = Scans(pesto);
        System.Diagnostics.Stopwatch watch = System.Diagnostics.Stopwatch.StartNew();
        Eventually.True(() => Scans(pesto) >= before + 3, "three scans");
        Assert.True(watch.Elapsed < TimeSpan.FromSeconds(10), $"three scans took {watch.Elapsed}");
    }

    [Fact]
    public void Without_such_a_rule_nothing_is_scanned()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "auto");
        Succeed(pesto.Pesto("-t", "8080"));
        long before = Scans(pesto);
        Thread.Sleep(1200);
        Assert.Equal(before, Scans(pesto));
    }

    [Fact]
    public void Both_directions_make_no_loop()
    {
        using Testbed bed = new();
        using TcpService inside = TcpService.Says(bed.Container, 80, "inside"), outside = TcpService.Says(bed.Host, 5432, "outside");
        using UdpEcho insideUdp = new(bed.Container, 53), outsideUdp = new(bed.Host, 123);
        using RunningForwarder pesto = bed.Serve("-t", "auto", "-u", "auto", "-T", "auto", "-U", "auto");
        long before = Scans(pesto);
        Eventually.True(() => Scans(pesto) >= before + 3, "more scans");
        Assert.Equal(["127.0.0.1:5432", "*:80"], Listening(bed.Host));
        Assert.Equal(["127.0.0.1:80", "*%lo:5432"], Listening(bed.Container));
        Assert.Equal(["127.0.0.1:123", "*:53"], Bound(bed.Host));
        Assert.Equal(["127.0.0.1:53", "*%lo:123"], Bound(bed.Container));
        inside.Dispose();
        outside.Dispose();
        insideUdp.Dispose();
        outsideUdp.Dispose();
        Eventually.Equal("", () => string.Join(' ', [.. Listening(bed.Host), .. Listening(bed.Container), .. Bound(bed.Host), .. Bound(bed.Container)]));
    }

    [Theory]
    [InlineData("-u", "auto")]
    [InlineData("-U", "auto")]
    public void A_UDP_service_comes_and_goes_within_a_few_scans(params string[] options)
    {
        using Testbed bed = new();
        (NetworkNamespace client, NetworkNamespace target) = options[0] == "-u" ? (bed.Host, bed.Container) : (bed.Container, bed.Host);
        using RunningForwarder pesto = bed.Serve(options);
        for (int round = 0; round < 2; round++)
        {
            using (UdpEcho service = new(target, 53))
            {
                Within(ScansUntilThere, pesto, () => Bound(client).Length == 1, "the service is reachable");
                using Socket socket = client.ConnectUdp(53);
                Assert.Equal("question", socket.Exchange("question"));
            }

            Within(ScansUntilGone, pesto, () => Bound(client).Length == 0, "the service is gone");
        }
    }

    [Fact]
    public void A_connected_UDP_socket_is_no_service()
    {
        using Testbed bed = new();
        using UdpEcho service = new(bed.Container, 53);
        using Socket client = bed.Container.NewSocket(AddressFamily.InterNetwork, SocketType.Dgram);
        client.Bind(new IPEndPoint(IPAddress.Loopback, 5353));
        client.Connect(new IPEndPoint(IPAddress.Loopback, 53));
        using RunningForwarder pesto = bed.Serve("-u", "auto");
        Assert.Equal(["*:53"], Bound(bed.Host));
    }

    [Fact]
    public void Ports_are_mapped_and_those_of_others_left_alone()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8000-8010:80-90,auto");
        using TcpService wanted = TcpService.Says(bed.Container, 85, "85"), other = TcpService.Says(bed.Container, 8005, "8005");
        Eventually.True(() => bed.Host.Accepts(8005), "the service is reachable");
        Assert.Equal(["*:8005"], Listening(bed.Host));
        using Socket socket = bed.Host.Connect(8005);
        Assert.Equal("85", socket.ReadToEnd());
    }

    [Fact]
    public void A_service_counts_if_what_is_forwarded_reaches_it()
    {
        using Testbed bed = new();
        new Command("ip", "-n", bed.Container.Name!, "address", "add", "192.0.2.1/32", "dev", "lo").RunOrFail();
        using TcpService elsewhere = TcpService.Says(bed.Container, new IPEndPoint(IPAddress.Parse("192.0.2.1"), 80), "elsewhere");
        using TcpService v6 = TcpService.Says(bed.Container, new IPEndPoint(IPAddress.IPv6Loopback, 81), "v6");
        using TcpService both = TcpService.Says(bed.Container, new IPEndPoint(IPAddress.IPv6Any, 82), "both");
        using RunningForwarder pesto = bed.Serve("-t", "127.0.0.1/80-85:80-85,auto", "-t", "::1/80-85,auto", "-t", "127.0.0.1/8080:192.0.2.1/80,auto");
        Assert.Equal(["127.0.0.1:8080", "127.0.0.1:82", "[::1]:81", "[::1]:82"], Listening(bed.Host).Order(StringComparer.Ordinal));
        using Socket client = bed.Host.Connect(8080);
        Assert.Equal("elsewhere", client.ReadToEnd());
    }

    [Fact]
    public void A_port_that_is_taken_is_told_once_and_opened_when_it_is_free()
    {
        using Testbed bed = new();
        using TcpService inside = TcpService.Says(bed.Container, 8005, "inside");
        RunningForwarder pesto;
        using (TcpService taken = TcpService.Says(bed.Host, 8005, "taken"))
        {
            pesto = bed.Serve("-t", "8000-8010,auto");
            long before = Scans(pesto);
            Eventually.True(() => Scans(pesto) > before + 2, "more scans");
            Assert.Single(Regex.Matches(pesto.Process.Errors, "8005: Address already in use"));
        }

        using (pesto)
        {
            Eventually.True(() => bed.Host.Accepts(8005), "the port is opened");
            using Socket client = bed.Host.Connect(8005);
            Assert.Equal("inside", client.ReadToEnd());
        }
    }

    [Fact]
    public void Commits_that_leave_a_service_wanted_do_not_disturb_its_clients()
    {
        using Testbed bed = new();
        using TcpService inside = TcpService.Echo(bed.Container, 80);
        using RunningForwarder pesto = bed.Serve("-t", "auto");
        using ConnectLoop clients = new(bed.Host, 80);
        clients.WaitForMore(10);
        string[][] tables = [["-t", "80"], ["-t", "auto"], ["-t", "127.0.0.1/80,auto"], ["-t", "127.0.0.1/70-90,auto"], ["-t", "127.0.0.1/80"], ["-t", "auto", "-T", "auto"]];
        for (int i = 0; i < 30; i++)
            Succeed(pesto.Pesto(tables[i % tables.Length]));
        clients.WaitForMore(10);
        Assert.Equal("", clients.Failures);
    }

    [Fact]
    public void An_ordinary_user_has_it_in_both_directions()
    {
        Account.NeedOrdinary();
        using Testbed bed = new(Account.Ordinary);
        using RunningForwarder pesto = bed.Serve("-t", "auto", "-T", "auto");
        using TcpService inside = TcpService.Says(bed.Container, 8080, "inside"), outside = TcpService.Says(bed.Host, 5432, "outside");
        Eventually.True(() => bed.Host.Accepts(8080) && bed.Container.Accepts(5432), "both are reachable");
        Assert.Equal(["127.0.0.1:5432", "*:8080"], Listening(bed.Host));
        Assert.Equal(["127.0.0.1:8080", "*%lo:5432"], Listening(bed.Container));
    }

    static void Succeed(Finished finished) => Assert.True(finished.ExitStatus == 0, $"{finished}");

    /// <summary>Where TCP listens, as ss(8) tells it, in the order of its kind.</summary>
    static string[] Listening(NetworkNamespace where) => Sockets(where, "-Hltn");

    /// <summary>Where UDP is bound and not connected.</summary>
    static string[] Bound(NetworkNamespace where) => Sockets(where, "-Hlun");

    static string[] Sockets(NetworkNamespace where, string options) =>
        [.. new Command("ss", options).In(where).RunOrFail().Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[3])];

    /// <summary>How many scans the forwarder has made, by its counters.</summary>
    /// <summary>
    /// Waits for what is to be so after so many scans more. They are counted before each look, which may take longer than a scan on a busy
    /// machine: only a look that begins after so many and does not find it is too late.
    /// </summary>
    static void Within(int most, RunningForwarder pesto, Func<bool> isSo, string what)
    {
        long before = Scans(pesto);
        Eventually.True(
            () =>
            {
                long scans = Scans(pesto) - before;
                bool now = isSo();
                Assert.True(now || scans <= most, $"not after {scans} scans: {what}");
                return now;
            },
            what);
    }

    static long Scans(RunningForwarder pesto)
    {
        int seen = Lines(pesto).Count;
        pesto.Process.Signal(Signum.SIGUSR1);
        Eventually.True(() => Lines(pesto).Count > seen, "it prints its counters");
        return long.Parse(Lines(pesto)[^1].Groups[1].Value);
    }

    static MatchCollection Lines(RunningForwarder pesto) => Regex.Matches(pesto.Process.Errors, @"stats: .* scans=(\d+)");
}
