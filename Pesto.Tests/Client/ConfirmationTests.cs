using Pesto.Tests.Harness;

namespace Pesto.Tests.Client;

/// <summary>What changes a client makes, and keeps, with --dry-run and --confirm.</summary>
public sealed class ConfirmationTests
{
    [Fact]
    public void A_dry_run_changes_nothing()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        string before = pesto.Pesto().Output;
        Assert.Equal(new Finished(0, "", ""), pesto.Pesto("--dry-run", "-t", "9000"));
        Assert.Equal(before, pesto.Pesto().Output);
    }

    [Fact]
    public void A_dry_run_of_tables_that_the_server_refuses_fails()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.ServeOnHost("-t", "8080:1");
        Finished finished = pesto.Pesto("--dry-run", "-A", "-t", "9000");
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains("forwarder itself", finished.Errors);
    }

    [Theory]
    [InlineData("y\n", true)]
    [InlineData("yes\n", true)]
    [InlineData("no\n", false)]
    [InlineData("", false)]
    public void The_change_stays_if_its_user_says_so(string answer, bool stays)
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        string before = pesto.Pesto().Output;
        Finished finished = bed.Pesto("--confirm", "20", "-A", "-t", "9000", pesto.Control).WithInput(answer).Run();
        AssertKept(stays, before, pesto, finished);
    }

    /// <summary>Long before the time is over: what is asked has no such answer.</summary>
    [Fact]
    public void Input_without_end_is_a_no()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        string before = pesto.Pesto().Output;
        Command command = new("sh", "-c", "exec \"$0\" --confirm 600 -A -t 9000 \"$1\" </dev/zero", Programs.Pesto, pesto.Control);
        AssertKept(false, before, pesto, command.In(bed.Host).Run(TimeSpan.FromSeconds(10)));
    }

    [Fact]
    public void Without_an_answer_the_change_is_undone_when_the_time_is_over()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        string before = pesto.Pesto().Output;
        using BackgroundProcess client = bed.Pesto("--confirm", "1", "-A", "-t", "9000", pesto.Control).Start();
        AssertKept(false, before, pesto, client.WaitForEnd(TimeSpan.FromSeconds(10)));
    }

    [Theory]
    [InlineData("echo looking; true", true)]
    [InlineData("echo looking; false", false)]
    public void The_change_stays_if_a_command_succeeds(string check, bool stays)
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        string before = pesto.Pesto().Output;
        Finished finished = pesto.Pesto("--confirm", "20", "--check", check, "-A", "-t", "9000");
        Assert.StartsWith("looking\n", finished.Errors);
        AssertKept(stays, before, pesto, finished);
    }

    [Fact]
    public void A_check_sees_the_new_tables_at_work()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve();
        using TcpService inside = TcpService.Says(bed.Container, 80, "inside");
        const string Check = "perl -MIO::Socket -e 'exit !IO::Socket::INET->new(q(127.0.0.1:9000))'";
        Assert.Equal(1, pesto.Pesto("--confirm", "20", "--check", Check, "-t", "9001:80").ExitStatus);
        Assert.Equal(0, pesto.Pesto("--confirm", "20", "--check", Check, "-t", "9000:80").ExitStatus);
    }

    [Fact]
    public void A_server_that_is_gone_by_the_time_of_the_answer_is_called_so()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve();
        using BackgroundProcess client = bed.Pesto("--confirm", "20", "-A", "-t", "9000", pesto.Control).Start();
        client.WaitUntil(() => client.Errors.Contains("Keep them?"), "it asks");
        pesto.Dispose();
        client.Write("y\n");
        Finished finished = client.WaitForEnd(TimeSpan.FromSeconds(10));
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains("the server is gone", finished.Errors);
    }

    static void AssertKept(bool stays, string before, RunningForwarder pesto, Finished finished)
    {
        Assert.True(finished.ExitStatus == (stays ? 0 : 1), finished.ToString());
        Assert.Empty(finished.Output);
        Assert.Equal(stays, !finished.Errors.Contains("not confirmed, the tables are as before"));
        string after = pesto.Pesto().Output;
        Assert.Equal(stays, after.Contains(":9000 "));
        if (!stays)
            Assert.Equal(before, after);
    }
}
