using System.Text.Json;
using Pesto.Linux;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Client;

/// <summary>With --json, one object on one line of standard output, whatever comes of it.</summary>
public sealed class JsonTests
{
    static JsonElement Parse(Finished finished)
    {
        Assert.Equal(finished.Output.Length - 1, finished.Output.IndexOf('\n'));
        using JsonDocument document = JsonDocument.Parse(finished.Output);
        return document.RootElement.Clone();
    }

    static void AssertResult(string result, int exitStatus, Finished finished)
    {
        Assert.True(exitStatus == finished.ExitStatus, finished.ToString());
        Assert.Equal(result, Parse(finished).GetProperty("result").GetString());
        Assert.Equal(exitStatus != 0, finished.Errors.Length > 0);
    }

    [Fact]
    public void A_listing_has_the_tables()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "127.0.0.1/8080-8081:80-81");
        Finished finished = pesto.Pesto("--json");
        JsonElement listing = Parse(finished);
        Assert.Equal(pesto.Control, listing.GetProperty("path").GetString());
        Assert.False(listing.TryGetProperty("result", out _));
        JsonElement pif = listing.GetProperty("pifs")[0], rule = pif.GetProperty("rules")[0];
        Assert.Equal("HOST", pif.GetProperty("name").GetString());
        Assert.Equal(("127.0.0.1", 8080, 80), (rule.GetProperty("address").GetString(), rule.GetProperty("first").GetInt32(), rule.GetProperty("to").GetInt32()));
    }

    [Fact]
    public void Each_outcome_has_its_word()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.ServeOnHost("-t", "8080:1");
        using TcpService taken = TcpService.Echo(bed.Host, 9000);
        AssertResult("committed", 0, pesto.Pesto("--json", "-A", "-t", "9001:1"));
        AssertResult("dry-run", 0, pesto.Pesto("--json", "--dry-run", "-A", "-t", "9002:1"));
        AssertResult("rolled-back", 1, pesto.Pesto("--json", "-A", "-t", "9000:1"));
        AssertResult("refused", 1, pesto.Pesto("--json", "-A", "-t", "9003"));
        AssertResult("failed", 1, pesto.Pesto("--json", "-A", "-t", "9001:2"));
        AssertResult("failed", 1, bed.Pesto("--json", bed.Folder["nothing"]).Run());
        Finished unconfirmed = pesto.Pesto("--json", "--confirm", "20", "--check", "echo no; false", "-A", "-t", "9004:1");
        AssertResult("unconfirmed", 1, unconfirmed);
        Assert.Contains("no\n", unconfirmed.Errors);
    }

    [Fact]
    public void A_port_that_is_taken_is_in_it()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve();
        using TcpService taken = TcpService.Echo(bed.Host, 9000);
        JsonElement failed = Parse(pesto.Pesto("--json", "-A", "-t", "9000")).GetProperty("failed")[0];
        Assert.Equal((9000, (int)Errno.EADDRINUSE), (failed.GetProperty("port").GetInt32(), failed.GetProperty("errno").GetInt32()));
    }

    [Fact]
    public void A_change_that_cant_be_reported_is_said_to_be_in_force()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve();
        Finished finished = new Command("sh", "-c", "exec \"$0\" --json -A -t 9000 \"$1\" >/dev/full", Programs.Pesto, pesto.Control).In(bed.Host).Run();
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains("in force", finished.Errors);
        Assert.Contains(":9000", pesto.Pesto().Output);
    }

    [Fact]
    [Needs("pasta")]
    public void What_a_real_pasta_does_not_do_is_in_it()
    {
        using Testbed bed = new();
        using RunningForwarder pasta = bed.ServeRealPasta();
        using TcpService taken = TcpService.Echo(bed.Host, 9000);
        AssertResult("failed", 1, pasta.Pesto("--json", "--confirm", "20", "-A", "-t", "9001"));
        AssertResult("refused", 1, pasta.Pesto("--json", "-A", "-t", "9000"));
    }

    [Fact]
    public void No_control_character_is_passed_on()
    {
        string text = Pesto.Client.Json.Failure("a\e\x7f\u0085\u009b\"\\", "failed", "\n");
        Assert.Equal("{\"path\":\"a\\u001b\\u007f\\u0085\\u009b\\\"\\\\\",\"result\":\"failed\",\"error\":\"\\u000a\"}\n", text);
    }
}
