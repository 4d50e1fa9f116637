using System.Net;
using System.Net.Sockets;
using Pesto.Rules;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Server;

/// <summary>Updates disturb nobody: neither who connects nor who is connected.</summary>
public sealed class UpdateTests
{
    const int Updates = 700;

    [Fact]
    public void Seven_hundred_updates_of_another_rule_refuse_and_reset_nobody()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        using TcpService service = TcpService.Echo(bed.Container, 80);
        using ConnectLoop clients = new(bed.Host, 8080), otherClients = new(bed.Host, 8080);
        clients.WaitForMore(50);
        int made = clients.Made;
        Rule stays = ControlClient.Listed(pesto.Control).Length == 1 ? ControlClient.Look(pesto.Control).Pifs[0].Table.Rules[0] : default;
        for (int i = 0; i < Updates; i++)
        {
            Rule comesAndGoes = ControlClient.Tcp("127.0.0.1", 9000, 80);
            comesAndGoes.Last = 9009;
            comesAndGoes.To = 81;
            ControlClient.Replace(pesto.Control, i % 2 == 0 ? [stays, comesAndGoes] : [stays]);
        }

        clients.WaitForMore(50);
        Assert.True(clients.Made > made + 100);
        clients.Stop();
        otherClients.Stop();
        Assert.Equal("", clients.Failures + otherClients.Failures);
        Assert.Equal(Updates + 1, pesto.Statistic("commits"));
        Assert.Equal(0, pesto.Statistic("refused") + pesto.Statistic("shed"));
    }

    [Fact]
    public void Seven_hundred_updates_by_the_client_refuse_and_reset_nobody()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        using TcpService service = TcpService.Echo(bed.Container, 80);
        using ConnectLoop clients = new(bed.Host, 8080);
        clients.WaitForMore(50);
        string script = $"for i in $(seq {Updates / 2}); do \"$0\" -A -t 9000-9009 \"$1\" && \"$0\" -D -t 9000-9009 \"$1\" || exit 1; done";
        Finished updates = new Command("sh", "-c", script, Programs.Pesto, pesto.Control).In(bed.Host).Run(TimeSpan.FromMinutes(2));
        Assert.Equal(new Finished(0, "", ""), updates);
        clients.WaitForMore(50);
        clients.Stop();
        Assert.Equal("", clients.Failures);
        Assert.Equal(Updates + 1, pesto.Statistic("commits"));
        Assert.Equal(0, pesto.Statistic("refused") + pesto.Statistic("shed"));
    }

    [Fact]
    public void Changing_only_a_rules_target_keeps_its_sockets_and_no_connection_notices()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "127.0.0.1/8080:80");
        using TcpService one = TcpService.Echo(bed.Container, 80), other = TcpService.Says(bed.Container, 81, "other");
        using ExchangeLoop inUse = new(bed.Host.Connect(8080));
        inUse.WaitForMore(10);
        long opened = pesto.Statistic("sockets_opened"), closed = pesto.Statistic("sockets_closed");
        ControlClient.Replace(pesto.Control, ControlClient.Tcp("127.0.0.1", 8080, 81));
        using (Socket client = bed.Host.Connect(8080))
            Assert.Equal("other", client.ReadToEnd());
        ControlClient.Replace(pesto.Control, ControlClient.Tcp("127.0.0.1", 8080, 80));
        using (Socket client = bed.Host.Connect(8080))
            Assert.Equal("one", client.Exchange("one"));
        ControlClient.Replace(pesto.Control);
        Assert.False(bed.Host.Accepts(8080));
        inUse.WaitForMore(10);
        Dictionary<string, long> after = pesto.Statistics();
        Assert.Equal(opened, after["sockets_opened"]);
        Assert.Equal(closed + 1, after["sockets_closed"]);
        Assert.Equal(2, after["sockets_stolen"]);
    }

    [Fact]
    public void A_target_address_can_be_changed_as_well()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "127.0.0.1/8080:127.0.0.2/80");
        using TcpService one = TcpService.Says(bed.Container, new IPEndPoint(IPAddress.Parse("127.0.0.2"), 80), "two");
        using TcpService other = TcpService.Says(bed.Container, new IPEndPoint(IPAddress.Parse("127.0.0.3"), 80), "three");
        using (Socket client = bed.Host.Connect(8080))
            Assert.Equal("two", client.ReadToEnd());
        ControlClient.Replace(pesto.Control, ControlClient.Tcp("127.0.0.1", 8080, 80, "127.0.0.3"));
        using (Socket client = bed.Host.Connect(8080))
            Assert.Equal("three", client.ReadToEnd());
        Assert.Equal(1, pesto.Statistic("sockets_opened"));
    }

    [Fact]
    public void A_rule_that_is_removed_serves_those_who_connected_before()
    {
        // Stopped, the forwarder accepts nobody: connections queue on a rule that the update, which waits too, removes.
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        using TcpService service = TcpService.Says(bed.Container, 80, "served");
        using ControlClient client = new(pesto.Control);
        client.ReadListing();
        pesto.Process.Signal(Mono.Unix.Native.Signum.SIGSTOP);
        Eventually.True(() => File.ReadAllText($"/proc/{pesto.Process.Id}/stat").Contains(") T "), "the forwarder is stopped");
        client.Send(ControlClient.Update());
        List<Socket> queued = [];
        for (int i = 0; i < 100; i++)
            queued.Add(bed.Host.Connect(8080));
        pesto.Process.Signal(Mono.Unix.Native.Signum.SIGCONT);
        client.WaitForClose();
        foreach (Socket socket in queued)
        {
            Assert.Equal("served", socket.ReadToEnd());
            socket.Dispose();
        }

        Assert.False(bed.Host.Accepts(8080));
        Assert.Equal(100, service.Accepted);
        Assert.Equal(0, pesto.Statistic("sockets"));
    }

    [Theory]
    [InlineData("0.0.0.0", "127.0.0.1")]
    [InlineData("127.0.0.1", "0.0.0.0")]
    public void A_rule_may_become_wider_or_narrower_while_clients_connect(string from, string to)
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", $"{from}/8080:80");
        using TcpService service = TcpService.Echo(bed.Container, 80);
        using ConnectLoop clients = new(bed.Host, 8080);
        for (int i = 0; i < 100; i++)
        {
            clients.WaitForMore(2);
            ControlClient.Replace(pesto.Control, ControlClient.Tcp(i % 2 == 0 ? to : from, 8080, 80));
        }

        clients.WaitForMore(10);
        clients.Stop();
        Assert.Equal("", clients.Failures);
        Assert.Equal(0, pesto.Statistic("sockets_failed"));
        Assert.Equal(1, pesto.Statistic("sockets"));
    }

    [Fact]
    public void A_rule_may_change_between_one_family_and_both_while_clients_connect()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        using TcpService service = TcpService.Echo(bed.Container, 80);
        using ConnectLoop clients = new(bed.Host, 8080);
        Rule both = ControlClient.Tcp("::", 8080, 80, flags: RuleFlags.DualStack), one = ControlClient.Tcp("0.0.0.0", 8080, 80);
        for (int i = 0; i < 100; i++)
        {
            clients.WaitForMore(2);
            ControlClient.Replace(pesto.Control, i % 2 == 0 ? one : both);
        }

        clients.WaitForMore(10);
        clients.Stop();
        Assert.Equal("", clients.Failures);
        Assert.Equal(0, pesto.Statistic("sockets_failed"));
    }

    [Fact]
    public void Ten_thousand_ports_come_and_go_while_clients_connect()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        using TcpService service = TcpService.Echo(bed.Container, 80);
        using ConnectLoop clients = new(bed.Host, 8080);
        using ExchangeLoop inUse = new(bed.Host.Connect(8080));
        Rule stays = ControlClient.Look(pesto.Control).Pifs[0].Table.Rules[0];
        Rule many = ControlClient.Tcp("127.0.0.1", 20_000, 20_000);
        many.Last = 29_999;
        for (int i = 0; i < 3; i++)
        {
            clients.WaitForMore(2);
            ControlClient.Replace(pesto.Control, stays, many);
            Assert.Equal(10_001, pesto.Statistic("sockets"));
            clients.WaitForMore(2);
            ControlClient.Replace(pesto.Control, stays);
            Assert.Equal(1, pesto.Statistic("sockets"));
        }

        inUse.WaitForMore(10);
        clients.WaitForMore(2);
        clients.Stop();
        Assert.Equal("", clients.Failures);
    }

    [Fact]
    public void A_port_that_is_taken_is_named_in_the_log_and_the_other_rules_work()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        using TcpService service = TcpService.Says(bed.Container, 80, "served"), taken = TcpService.Says(bed.Host, 9000, "somebody else");
        ControlClient.Replace(pesto.Control, ControlClient.Tcp("127.0.0.1", 9000, 80), ControlClient.Tcp("127.0.0.1", 9001, 80));
        using Socket client = bed.Host.Connect(9001), other = bed.Host.Connect(9000);
        Assert.Equal("served", client.ReadToEnd());
        Assert.Equal("somebody else", other.ReadToEnd());
        Eventually.True(() => pesto.Process.Errors.Contains("TCP 127.0.0.1:9000: Address already in use"), "the log says so");
        Assert.Equal(1, pesto.Statistic("sockets_failed"));
    }
}
