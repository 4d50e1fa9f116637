using System.Net;
using System.Net.Sockets;
using Mono.Unix.Native;
using Pesto.Tests.Harness;

namespace Pesto.Tests.ClientAddress;

/// <summary>What is set up in a container for its clients' addresses: once for all forwarders in it, and gone when the last has ended, however it ended.</summary>
public sealed class LifeTests
{
    static readonly TimeSpan Limit = TimeSpan.FromSeconds(10);

    static void Stop(RunningForwarder pesto, Signum signal)
    {
        pesto.Process.Signal(signal);
        _ = pesto.Process.WaitForEnd(Limit);
    }

    static void KillWithItsChild(RunningForwarder pesto)
    {
        int child = int.Parse(File.ReadAllText($"/proc/{pesto.Process.Id}/task/{pesto.Process.Id}/children"));
        Syscall.kill(child, Signum.SIGKILL);
        Stop(pesto, Signum.SIGKILL);
    }

    [Fact]
    [Needs("nft")]
    public void What_is_set_up_is_what_ip_and_nft_show()
    {
        using Surroundings around = new();
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80", "-u", "8080:80");
        Assert.Equal(
            [
                "0:\tfrom all lookup local",
                "70:\tfrom all fwmark 0x1070 lookup 4208 proto 112",
                "70:\tfrom 127.0.0.0/8 ipproto udp sport 1-32767 lookup 4208 proto 112",
                "70:\tfrom 127.0.0.0/8 ipproto udp sport 61000-65534 lookup 4208 proto 112",
                "32766:\tfrom all lookup main",
                "32767:\tfrom all lookup default",
                "32768:\tfrom all ipproto udp sport 1-32767 lookup 4208 proto 112",
                "32768:\tfrom all ipproto udp sport 61000-65534 lookup 4208 proto 112",
            ],
            Lines(around.InContainer("rule")));
        Assert.Equal(
            [
                "0:\tfrom all lookup local",
                "70:\tfrom all fwmark 0x1070 lookup 4208 proto 112",
                "70:\tfrom ::1 ipproto udp sport 1-32767 lookup 4208 proto 112",
                "70:\tfrom ::1 ipproto udp sport 61000-65534 lookup 4208 proto 112",
                "32766:\tfrom all lookup main",
                "32768:\tfrom all ipproto udp sport 1-32767 lookup 4208 proto 112",
                "32768:\tfrom all ipproto udp sport 61000-65534 lookup 4208 proto 112",
            ],
            Lines(around.InContainer("-6", "rule")));
        Assert.Equal(["local default dev lo proto 112 scope host metric 28672"], Lines(around.InContainer("route", "show", "table", "4208")));
        Assert.Equal(["local default dev lo proto 112 metric 28672 pref medium"], Lines(around.InContainer("-6", "route", "show", "table", "4208")));
        string[] ruleset = Lines(around.Inside("nft", "-s", "list", "ruleset").RunOrFail());
        Assert.Matches("^table inet pesto-[0-9a-f]{8} \\{ # progname pesto$", ruleset[0]);
        Assert.Equal(
            [
                "flags owner",
                "set v4 {", "type ipv4_addr . inet_service . inet_service", "size 65536", "flags dynamic,timeout", "timeout 3m", "}",
                "set v6 {", "type ipv6_addr . inet_service . inet_service", "size 65536", "flags dynamic,timeout", "timeout 3m", "}",
                "chain in {", "type filter hook input priority raw; policy accept;",
                "meta mark 0x00001070 iif \"lo\" update @v4 { ip saddr . udp sport . udp dport }",
                "meta mark 0x00001071 iif \"lo\" delete @v4 { ip saddr . udp sport . udp dport }",
                "meta mark 0x00001070 iif \"lo\" update @v6 { ip6 saddr . udp sport . udp dport }",
                "meta mark 0x00001071 iif \"lo\" delete @v6 { ip6 saddr . udp sport . udp dport }",
                "meta mark 0x00001071 iif \"lo\" meta l4proto udp drop", "}",
                "chain out {", "type route hook output priority raw; policy accept;",
                "ip daddr . udp dport . udp sport @v4 update @v4 { ip daddr . udp dport . udp sport } meta mark set 0x00001070",
                "ip6 daddr . udp dport . udp sport @v6 update @v6 { ip6 daddr . udp dport . udp sport } meta mark set 0x00001070", "}", "}",
            ],
            ruleset[1..].Select(line => System.Text.RegularExpressions.Regex.Replace(line, "^size \\d+$", "size 65536")));
    }

    static string[] Lines(string text) => [.. text.Split('\n').Select(line => line.Trim()).Where(line => line != "")];

    [Theory]
    [Needs("nft")]
    [InlineData(false, Signum.SIGTERM)]
    [InlineData(false, Signum.SIGKILL)]
    [InlineData(true, Signum.SIGTERM)]
    [InlineData(true, Signum.SIGKILL)]
    public void When_it_has_ended_all_is_as_it_was(bool ordinary, Signum signal)
    {
        if (ordinary)
            Account.NeedOrdinary();
        using Surroundings around = new(ordinary ? Account.Ordinary : null);
        around.Inside("nft", "add table inet mine; add chain inet mine output { type filter hook output priority 0; }; add rule inet mine output udp dport 53 counter").RunOrFail();
        around.InContainer("rule", "add", "fwmark", "1", "lookup", "100", "priority", "100");
        around.InContainer("route", "add", "local", "default", "dev", "lo", "table", "100");
        string before = around.State(filters: true);
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80", "-u", "8080:80");
        Assert.NotEqual(before, around.State(filters: true));
        Stop(pesto, signal);
        Eventually.Equal(before, () => around.State(filters: true));
    }

    [Fact]
    public void Settings_that_were_on_before_stay_on()
    {
        using Surroundings around = new();
        around.Container.Run(() =>
        {
            File.WriteAllText("/proc/sys/net/ipv4/tcp_fwmark_accept", "1");
            return 0;
        });
        string before = around.State();
        using RunningForwarder first = around.Bed.Serve("-t", "8080:80");
        using (RunningForwarder second = Other(around, "second", "-t", "8081:80"))
            Stop(first, Signum.SIGTERM);
        Eventually.Equal(before, () => around.State());
        Assert.Equal("1\n", around.Setting("ipv4/tcp_fwmark_accept"));
    }

    [Theory]
    [Needs("nft")]
    [InlineData(false)]
    [InlineData(true)]
    public void Killed_with_all_that_is_its_own_and_started_again_there_is_one_set_of_rules_and_then_none(bool ordinary)
    {
        if (ordinary)
            Account.NeedOrdinary();
        using Surroundings around = new(ordinary ? Account.Ordinary : null);
        string before = around.State(filters: true);
        using RunningForwarder first = around.Bed.Serve("-t", "8080:80");
        string during = around.State();
        KillWithItsChild(first);
        // The rest is there still, but for the filter, which the kernel takes away with its owner.
        Assert.Equal(during, around.State());
        Eventually.True(() => !around.State(filters: true).Contains("table inet pesto-"), "the filter is gone");
        using RunningForwarder second = around.Bed.Serve("-t", "8080:80");
        Assert.Equal(during, around.State());
        Assert.Single(around.Inside("nft", "list", "tables").RunOrFail().Split('\n', StringSplitOptions.RemoveEmptyEntries));
        Stop(second, Signum.SIGTERM);
        Eventually.Equal(before, () => around.State(filters: true));
    }

    [Fact]
    public void Several_forwarders_do_not_disturb_each_other_and_the_last_cleans_up()
    {
        using Surroundings around = new();
        string before = around.State();
        using TcpService echo = TcpService.Echo(around.Container, 80);
        using RunningForwarder first = around.Bed.Serve("-t", "8080:80");
        string during = around.State();
        using RunningForwarder second = Other(around, "second", "-t", "8081:80");
        using RunningForwarder third = Other(around, "third", "-t", "8082:80", "--client-address-mark", "5000");
        Assert.Equal("question", Ask(around, 8080));
        Stop(first, Signum.SIGKILL);
        Assert.Equal("question", Ask(around, 8081));
        Assert.Equal("question", Ask(around, 8082));
        KillWithItsChild(third);
        Assert.Equal("question", Ask(around, 8081));
        Stop(second, Signum.SIGTERM);
        Eventually.Equal(before, () => around.State());
        Assert.All(echo.Peers, peer => Assert.Equal(Surroundings.ClientV4, $"{peer.Address}"));
        Assert.Contains("fwmark 0x1070 lookup 4208", during);
    }

    [Fact]
    public void Many_that_start_and_end_at_once_leave_nothing()
    {
        using Surroundings around = new();
        string before = around.State();
        for (int round = 0; round < 3; round++)
        {
            int number = round;
            Parallel.For(0, 4, i =>
            {
                using RunningForwarder pesto = Other(around, $"control-{number}-{i}", "-t", $"{8080 + i}:80");
                Stop(pesto, i % 2 == 0 ? Signum.SIGTERM : Signum.SIGKILL);
            });
            Eventually.Equal(before, () => around.State());
        }
    }

    [Fact]
    public void Mark_and_table_can_be_chosen()
    {
        using Surroundings around = new();
        using TcpService echo = TcpService.Echo(around.Container, 80);
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80", "--client-address-mark", "77");
        Assert.Contains("fwmark 0x4d lookup 77", around.State());
        Assert.Equal("question", Ask(around, 8080));
        Assert.Equal(Surroundings.ClientV4, $"{echo.OnlyPeer().Address}");
    }

    [Fact]
    public void A_start_that_fails_leaves_nothing()
    {
        using Surroundings around = new();
        string before = around.State();
        using TcpService taken = TcpService.Echo(around.Host, new IPEndPoint(IPAddress.Any, 8080));
        Assert.Equal(1, around.Bed.Pesto("serve", "-f", "--netns", around.Container.Name!, "-t", "8080:80").Run().ExitStatus);
        Assert.Equal(before, around.State());
    }

    [Theory]
    [InlineData("loopback")]
    [InlineData("container")]
    [InlineData("proxy")]
    public void Where_no_address_is_kept_nothing_is_set_up(string mode)
    {
        using Surroundings around = new();
        string before = around.State();
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80", "--client-address", mode);
        Assert.Equal(before, around.State());
    }

    [Fact]
    public void Without_a_sandbox_it_cleans_up_by_itself()
    {
        using Surroundings around = new();
        string before = around.State();
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80", "--no-sandbox");
        Assert.NotEqual(before, around.State());
        Stop(pesto, Signum.SIGTERM);
        Assert.Equal(before, around.State());
    }

    static string Ask(Surroundings around, int port)
    {
        using Socket client = around.Connect(Surroundings.HostV4, port);
        return client.Exchange("question");
    }

    /// <summary>Another forwarder into the same container.</summary>
    static RunningForwarder Other(Surroundings around, string name, params string[] arguments)
    {
        string control = around.Bed.Folder[name];
        return new RunningForwarder(
            around.Bed, control, around.Bed.Pesto(["serve", "-f", "-c", control, "--netns", around.Container.Name ?? around.Container.Path, .. arguments]).Start());
    }
}
