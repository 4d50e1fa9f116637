using Pesto.Protocol;
using Pesto.Rules;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Client;

/// <summary>What the client does that no recording shows: with servers that refuse, forget, lie, stall or are old.</summary>
public sealed class ClientTests
{
    static Finished Run(ScriptedServer server, params string[] options) => new Command(Programs.Pesto, [.. options, server.Path]).Run();

    static byte[] Listing(uint version = 2)
    {
        Capabilities all = Capabilities.V4 | Capabilities.V6 | Capabilities.Tcp | Capabilities.Udp;
        return new ServerState(version) { Pifs = { new(Pif.Host, Pif.HostName, all) } }.WriteListing();
    }

    [Fact]
    public void An_update_that_a_server_does_not_read_to_the_end_is_refused()
    {
        using ScriptedServer server = new(client =>
        {
            client.Send(Listing());
            client.Receive(new byte[10]);
            return [];
        });
        Finished finished = Run(server, "-t", "80");
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains("refused", finished.Errors);
    }

    [Fact]
    public void Tables_that_are_not_those_sent_are_a_failure()
    {
        using ScriptedServer server = new(Listing(), Listing());
        Finished finished = Run(server, "-s", "-t", "80");
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains("not those that were sent", finished.Errors);
        Assert.DoesNotContain("Updated", finished.Output);
    }

    [Fact]
    public void A_server_that_has_no_time_for_a_second_look_is_believed()
    {
        using ScriptedServer server = new(
            client => ScriptedServer.Exchange(client, Listing()),
            client => ScriptedServer.ReadToEnd(client));
        Assert.Equal(new Finished(0, "", ""), Run(server, "-t", "80"));
    }

    [Fact]
    public void An_update_is_in_force_when_the_server_closes_and_not_before()
    {
        using ManualResetEventSlim applied = new();
        using ScriptedServer server = new(client =>
        {
            client.Send(Listing());
            byte[] update = ScriptedServer.ReadToEnd(client);
            Thread.Sleep(300);
            applied.Set();
            return update;
        });
        Assert.Equal(0, Run(server, "-t", "80").ExitStatus);
        Assert.True(applied.IsSet);
    }

    [Fact]
    public void An_older_server_gets_rules_without_target()
    {
        using ScriptedServer server = new(Listing(version: 1));
        Assert.Equal(new Finished(0, "", ""), Run(server, "-t", "0.0.0.0/80:8080"));
        byte[] update = Assert.Single(server.Received);
        Assert.Equal(Wire.TableSize + Wire.OldRuleSize + 1, update.Length);
        Rule rule = Wire.ReadRule(update.AsSpan(Wire.TableSize), version: 1);
        Assert.Equal("TCP [0.0.0.0]:80  =>  8080", RuleText.Text(in rule));
    }

    [Fact]
    public void An_older_server_gets_nothing_if_a_rule_needs_a_target()
    {
        using ScriptedServer server = new(Listing(version: 1));
        Finished finished = Run(server, "-t", "0.0.0.0/80:10.0.0.1/8080");
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains("-t 0.0.0.0/80:10.0.0.1/8080", finished.Errors);
        Assert.Contains("too old", finished.Errors);
        Eventually.True(() => server.Received.Count == 1, "the client ends the exchange");
        Assert.Empty(server.Received[0]);
    }

    [Fact]
    public void A_server_that_dribbles_does_not_hold_the_client_up()
    {
        using ScriptedServer server = new(client =>
        {
            foreach (byte one in Listing())
            {
                client.Send([one]);
                Thread.Sleep(200);
            }

            return [];
        });
        Finished finished = Run(server);
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains("timed out", finished.Errors);
    }

    [Fact]
    public void A_name_from_the_server_does_not_steer_the_terminal()
    {
        byte[] listing = Listing();
        listing[Wire.HelloSize + 2] = 0x1b;
        using ScriptedServer server = new(listing);
        Assert.Contains("  H?ST\n", Run(server).Output);
    }

    [Fact]
    public void What_cant_be_printed_is_not_lost_in_silence()
    {
        using ScriptedServer server = new(Listing());
        Finished finished = new Command("sh", "-c", "exec \"$0\" \"$1\" >/dev/full", Programs.Pesto, server.Path).Run();
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains("standard output", finished.Errors);
    }

    [Fact]
    public void A_path_without_server_is_named_with_the_reason()
    {
        using TempFolder folder = new();
        Finished finished = new Command(Programs.Pesto, folder["nothing"]).Run();
        Assert.Equal(new Finished(1, "", $"pesto: {folder["nothing"]}: connect: No such file or directory\n"), finished);
        Assert.Contains("too long", new Command(Programs.Pesto, folder[new string('x', 120)]).Run().Errors);
    }

    [Fact]
    public void An_unknown_option_gets_the_usage_on_standard_error()
    {
        Finished finished = new Command(Programs.Pesto, "-x", "path").Run();
        Assert.Equal(1, finished.ExitStatus);
        Assert.Empty(finished.Output);
        Assert.Contains("-x", finished.Errors);
        Assert.Contains("Usage: pesto [OPTION]... PATH", finished.Errors);
    }

    [Fact]
    public void Serve_alone_is_a_path_like_any_other() =>
        Assert.Contains("pesto: serve: connect:", new Command(Programs.Pesto, "serve").Run().Errors);
}
