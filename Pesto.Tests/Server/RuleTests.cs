using System.Net;
using System.Net.Sockets;
using Pesto.Rules;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Server;

/// <summary>What rules mean: where they listen, and where they lead.</summary>
public sealed class RuleTests
{
    [Fact]
    public void Without_an_address_a_rule_listens_on_both_families()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        using TcpService four = TcpService.Says(bed.Container, 80, "four"), six = TcpService.Says(bed.Container, new IPEndPoint(IPAddress.IPv6Loopback, 80), "six");
        Assert.Equal("four", Answer(bed, "127.0.0.1", 8080));
        Assert.Equal("six", Answer(bed, "::1", 8080));
        Assert.Equal(1, pesto.Statistic("sockets"));
    }

    [Theory]
    [InlineData("127.0.0.2", "127.0.0.2", "127.0.0.1")]
    [InlineData("0.0.0.0", "127.0.0.1", "::1")]
    [InlineData("::1", "::1", "127.0.0.1")]
    [InlineData("[::1]", "::1", "127.0.0.1")]
    [InlineData("::", "::1", "127.0.0.1")]
    public void A_rule_listens_on_its_address_and_no_other(string address, string served, string refused)
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", $"{address}/8080:80");
        using TcpService service = TcpService.Says(bed.Container, new IPEndPoint(IPAddress.IPv6Any, 80), "inside");
        Assert.Equal("inside", Answer(bed, served, 8080));
        Assert.False(bed.Host.Accepts(At(refused, 8080)));
    }

    [Theory]
    [InlineData("-4", "127.0.0.1", "::1")]
    [InlineData("-6", "::1", "127.0.0.1")]
    public void One_family_alone_can_be_asked_for(string option, string served, string refused)
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve(option, "-t", "8080:80");
        using TcpService service = TcpService.Says(bed.Container, new IPEndPoint(IPAddress.IPv6Any, 80), "inside");
        Assert.Equal("inside", Answer(bed, served, 8080));
        Assert.False(bed.Host.Accepts(At(refused, 8080)));
    }

    [Fact]
    public void Ports_of_a_range_go_to_those_of_the_targets_range()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080-8083:90-93");
        using TcpService first = TcpService.Says(bed.Container, 90, "first"), last = TcpService.Says(bed.Container, 93, "last");
        Assert.Equal("first", Answer(bed, "127.0.0.1", 8080));
        Assert.Equal("last", Answer(bed, "127.0.0.1", 8083));
        Assert.False(bed.Host.Accepts(8079));
        Assert.False(bed.Host.Accepts(8084));
    }

    [Fact]
    public void Excluded_ports_are_not_listened_on()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "9000-9010:80-90,~9003,~9005-9006");
        using TcpService service = TcpService.Says(bed.Container, 87, "seven");
        foreach (int port in Enumerable.Range(9000, 11))
            Assert.Equal(port is not (9003 or 9005 or 9006), bed.Host.Accepts(port));
        Assert.Equal("seven", Answer(bed, "127.0.0.1", 9007));
    }

    [Fact]
    public void A_rule_bound_to_an_interface_serves_only_who_comes_by_it()
    {
        using Testbed bed = new();
        using NetworkNamespace outside = NetworkNamespace.Create();
        string cable = bed.Host.Link(outside, ["10.1.0.1/24"], ["10.1.0.2/24"]);
        using RunningForwarder pesto = bed.Serve("-t", "%lo/8080:80", "-t", $"%{cable}/8081:80");
        using TcpService service = TcpService.Says(bed.Container, 80, "inside");
        Assert.Equal("inside", Answer(bed, "127.0.0.1", 8080));
        Assert.False(outside.Accepts(At("10.1.0.1", 8080)));
        using Socket client = outside.Connect(At("10.1.0.1", 8081));
        Assert.Equal("inside", client.ReadToEnd());
        Assert.False(bed.Host.Accepts(8081));
    }

    [Fact]
    public void A_rule_leads_to_the_address_that_it_names()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "127.0.0.1/8080:127.0.0.5/80", "-t", "127.0.0.1/8081:127.0.0.5", "-t", "::1/8080:::1/81");
        using TcpService one = TcpService.Says(bed.Container, At("127.0.0.5", 80), "80"), other = TcpService.Says(bed.Container, At("127.0.0.5", 8081), "8081");
        using TcpService six = TcpService.Says(bed.Container, At("::1", 81), "six");
        Assert.Equal("80", Answer(bed, "127.0.0.1", 8080));
        Assert.Equal("8081", Answer(bed, "127.0.0.1", 8081));
        Assert.Equal("six", Answer(bed, "::1", 8080));
    }

    [Fact]
    public void Without_a_namespace_a_rule_leads_to_the_target_that_was_given_for_each_family()
    {
        using Testbed bed = new();
        bed.Host.Link(bed.Container, ["10.1.0.1/24", "fd01::1/64"], ["10.1.0.2/24", "fd01::2/64"]);
        using RunningForwarder pesto = bed.ServeOnHost("--target", "10.1.0.2", "--target", "[fd01::2]", "-t", "8080:80");
        using TcpService four = TcpService.Says(bed.Container, At("10.1.0.2", 80), "four"), six = TcpService.Says(bed.Container, At("fd01::2", 80), "six");
        Assert.Equal("four", Answer(bed, "127.0.0.1", 8080));
        Assert.Equal("six", Answer(bed, "::1", 8080));
    }

    [Fact]
    public void One_target_serves_both_families()
    {
        using Testbed bed = new();
        bed.Host.Link(bed.Container, ["10.1.0.1/24"], ["10.1.0.2/24"]);
        using RunningForwarder pesto = bed.ServeOnHost("--target", "10.1.0.2", "-t", "8080");
        using TcpService service = TcpService.Says(bed.Container, At("10.1.0.2", 8080), "inside");
        Assert.Equal("inside", Answer(bed, "127.0.0.1", 8080));
        Assert.Equal("inside", Answer(bed, "::1", 8080));
    }

    [Fact]
    public void Without_anything_said_the_target_is_this_host()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.ServeOnHost("-t", "8080:80", "-t", "127.0.0.2/81:81");
        using TcpService service = TcpService.Says(bed.Host, 80, "here"), sameNumber = TcpService.Says(bed.Host, 81, "same number");
        Assert.Equal("here", Answer(bed, "127.0.0.1", 8080));
        Assert.Equal("same number", Answer(bed, "127.0.0.2", 81));
    }

    [Theory]
    [InlineData("-t 8080")]
    [InlineData("-t 127.0.0.1/8080")]
    [InlineData("-t 8080:8081 -t 8081:8082 -t 8082:8080")]
    [InlineData("-t 9000-9010:9005-9015")]
    [InlineData("-t 127.0.0.1/8080:127.0.0.1/8080")]
    [InlineData("-t 127.0.0.2/8080:127.0.0.3/80 -t 127.0.0.3/80:127.0.0.2/8080")]
    [InlineData("-t 0.0.0.0/8080:127.0.0.9/8080")]
    [InlineData("-t 0.0.0.0/8080:10.1.0.1/8080")]
    [InlineData("-t 127.0.0.1/8080:0.0.0.0/8080")]
    [InlineData("--target 10.1.0.1 -t 8080")]
    [InlineData("--target 10.1.0.1 -t 10.1.0.1/8080")]
    [InlineData("--target ::1 -t ::1/8080")]
    [InlineData("--target fd01::1 -t 8080")]
    [InlineData("--target 127.0.0.1 -t ::1/8080:8081 -t 127.0.0.1/8081")]
    public void A_rule_that_leads_back_to_the_forwarder_is_refused(string options)
    {
        using Testbed bed = new();
        bed.Host.Link(bed.Container, ["10.1.0.1/24", "fd01::1/64"], ["10.1.0.2/24", "fd01::2/64"]);
        Finished finished = bed.Pesto(["serve", "-f", .. options.Split(' ')]).Run();
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains("would be forwarded to the forwarder itself", finished.Errors);
    }

    [Theory]
    [InlineData("--target 10.1.0.1 -t 127.0.0.1/8080")]
    [InlineData("--target 10.1.0.2 -t 8080")]
    [InlineData("--target fd01::2 -t 8080")]
    [InlineData("--target 127.0.0.1 -t ::1/8080")]
    [InlineData("-t 127.0.0.2/8080")]
    [InlineData("-t 8080:8081 -t 8082:8083")]
    [InlineData("-t 8080:8081 -t 8081:8082")]
    public void A_rule_that_leads_elsewhere_is_not(string options)
    {
        using Testbed bed = new();
        bed.Host.Link(bed.Container, ["10.1.0.1/24", "fd01::1/64"], ["10.1.0.2/24", "fd01::2/64"]);
        using RunningForwarder pesto = bed.ServeOnHost(options.Split(' '));
    }

    [Fact]
    public void An_update_that_leads_back_to_the_forwarder_is_refused_as_well()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.ServeOnHost("-t", "127.0.0.1/8080:80");
        string[] before = ControlClient.Listed(pesto.Control);
        ControlClient.Replace(pesto.Control, ControlClient.Tcp("127.0.0.1", 9000, 9000));
        ControlClient.Replace(pesto.Control, ControlClient.Tcp("127.0.0.1", 9000, 9000, "0.0.0.0"));
        ControlClient.Replace(pesto.Control, ControlClient.Tcp("::", 9000, 9001, flags: RuleFlags.DualStack), ControlClient.Tcp("::", 9001, 9000, flags: RuleFlags.DualStack));
        Assert.Equal(before, ControlClient.Listed(pesto.Control));
        Finished refused = pesto.Pesto("-A", "-t", "9000");
        Assert.Equal(1, refused.ExitStatus);
        Assert.Contains("forwarder itself", refused.Errors);
        Assert.Equal(before, ControlClient.Listed(pesto.Control));
    }

    [Fact]
    public void A_long_chain_of_rules_that_leads_nowhere_is_allowed()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.ServeOnHost();
        Rule[] chain = [.. Enumerable.Range(0, RuleCheck.MostRules).Select(i => ControlClient.Tcp("0.0.0.0", (ushort)(10_000 + i), (ushort)(10_001 + i)))];
        ControlClient.Replace(pesto.Control, chain);
        Assert.Equal(RuleCheck.MostRules, ControlClient.Listed(pesto.Control).Length);
        chain[^1].To = 10_000;
        ControlClient.Replace(pesto.Control, chain);
        Assert.EndsWith("=>  10255", ControlClient.Listed(pesto.Control)[^1]);
    }

    static IPEndPoint At(string address, int port) => new(IPAddress.Parse(address), port);

    static string Answer(Testbed bed, string address, int port)
    {
        using Socket client = bed.Host.Connect(At(address, port));
        return client.ReadToEnd();
    }
}
