using System.Net.Sockets;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Interop;

/// <summary>To the real client, `pesto serve` is a pasta.</summary>
[Needs("pasta", "pesto")]
public sealed class ServerTests
{
    static readonly string[] Nothing = ["-t", "none", "-u", "none", "-T", "none", "-U", "none"];

    [Fact]
    public void The_real_client_sees_no_difference_through_a_whole_session()
    {
        using Testbed ours = new(), theirs = new();
        using RunningForwarder one = ours.Serve(Nothing), other = theirs.ServeRealPasta();
        Session.Compare(one, (pesto, options) => pesto.RealPesto(options), other, (pasta, options) => pasta.RealPesto(options));
    }

    [Fact]
    public void The_real_clients_rules_carry_traffic()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve(Nothing);
        using TcpService inside = TcpService.Says(bed.Container, 80, "inside"), outside = TcpService.Says(bed.Host, 5432, "outside");
        using UdpEcho echo = new(bed.Container, 53);
        Assert.Equal(0, pesto.RealPesto("-t", "8080:80", "-u", "5353:53", "-T", "5432").ExitStatus);
        Eventually.True(() => bed.Container.Accepts(5432), "the rules are in force");
        using Socket inward = bed.Host.Connect(8080), outward = bed.Container.Connect(5432), datagrams = bed.Host.ConnectUdp(5353);
        Assert.Equal("inside", inward.ReadToEnd());
        Assert.Equal("outside", outward.ReadToEnd());
        Assert.Equal("question", datagrams.Exchange("question"));
    }

    [Fact]
    public void The_real_clients_updates_disturb_nobody_on_a_rule_that_stays()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        using TcpService inside = TcpService.Echo(bed.Container, 80);
        using ConnectLoop clients = new(bed.Host, 8080);
        clients.WaitForMore(10);
        for (int i = 0; i < 20; i++)
        {
            Assert.Equal(0, pesto.RealPesto("-A", "-t", "9000-9099").ExitStatus);
            Assert.Equal(0, pesto.RealPesto("-D", "-t", "9000-9099").ExitStatus);
        }

        clients.WaitForMore(10);
        Assert.Equal("", clients.Failures);
    }

    [Fact]
    public void The_real_client_gets_on_with_an_ordinary_users_pesto()
    {
        Account.NeedOrdinary();
        using Testbed bed = new(Account.Ordinary);
        using RunningForwarder pesto = bed.Serve(Nothing);
        using TcpService inside = TcpService.Says(bed.Container, 80, "inside");
        Assert.Equal(0, pesto.RealPesto("-t", "8080:80").ExitStatus);
        Eventually.True(() => bed.Host.Accepts(8080), "the rule is in force");
        using Socket client = bed.Host.Connect(8080);
        Assert.Equal("inside", client.ReadToEnd());
    }
}
