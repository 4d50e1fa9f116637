using System.Net.Sockets;
using Pesto.Protocol;
using Pesto.Rules;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Client;

/// <summary>What the client tells of transactions that end as pesto's own server does not let them end, or seldom.</summary>
public sealed class TransactionUpdateTests
{
    static readonly byte[] Valid = Written(VerdictMessage.Valid);

    static byte[] Written(VerdictMessage verdict)
    {
        byte[] message = new byte[VerdictMessage.MostBytes];
        return message[..verdict.Write(message)];
    }

    static byte[] Outcome(int failures)
    {
        byte[] message = new byte[OutcomeMessage.MostBytes];
        return message[..OutcomeMessage.Write(message, failures, [])];
    }

    static byte[] Done(DoneStatus status, int failures = 0)
    {
        byte[] message = new byte[DoneMessage.MostBytes];
        return message[..DoneMessage.Write(message, status, failures, [])];
    }

    static byte[] Listing()
    {
        Capabilities all = Capabilities.V4 | Capabilities.V6 | Capabilities.Tcp | Capabilities.Udp | Capabilities.Transactions;
        return new ServerState(Wire.Version) { Pifs = { new(Pif.Host, Pif.HostName, all) } }.WriteListing();
    }

    /// <summary>Reads what the client sends up to APPLY.</summary>
    static void ReadTables(Socket client)
    {
        client.ReadExactly(ClientHello.Size);
        client.ReadExactly((int)MessageHead.Read(client.ReadExactly(MessageHead.Size)).Length);
    }

    static Finished Run(byte[] says, params string[] options)
    {
        using ScriptedServer server = new(client =>
        {
            client.Send(Listing());
            ReadTables(client);
            client.Send(says);
            return ScriptedServer.ReadToEnd(client);
        });
        return new Command(Programs.Pesto, [.. options, "-t", "80", server.Path]).Run();
    }

    [Fact]
    public void Failures_without_names_are_counted()
    {
        Finished finished = Run([.. Valid, .. Outcome(5), .. Done(DoneStatus.RolledBack)]);
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains("does not name: 5\n", finished.Errors);
        Assert.Contains("rolled back", finished.Errors);
    }

    [Fact]
    public void A_rollback_that_became_a_commit_is_called_so()
    {
        Finished finished = Run([.. Valid, .. Outcome(5), .. Done(DoneStatus.Committed)]);
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains("the change is in force", finished.Errors);
        Assert.DoesNotContain("as before", finished.Errors);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    public void What_could_not_be_done_at_the_end_is_told(int failuresBefore)
    {
        DoneStatus status = failuresBefore == 0 ? DoneStatus.Committed : DoneStatus.RolledBack;
        Finished finished = Run([.. Valid, .. Outcome(failuresBefore), .. Done(status, failures: 3)]);
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains("does not name: 3\n", finished.Errors);
        Assert.Contains("but for these ports", finished.Errors);
    }

    [Fact]
    public void A_confirmation_that_comes_too_late_is_told_so()
    {
        using ManualResetEventSlim closed = new();
        using ScriptedServer server = new(
            client =>
            {
                client.Send(Listing());
                ReadTables(client);
                client.Send([.. Valid, .. Outcome(0), .. Done(DoneStatus.TimedOut)]);
                client.ReadExactly(ApplyMessage.Size);
                client.Close();
                closed.Set();
                return [];
            });
        using BackgroundProcess client = new Command(Programs.Pesto, "--confirm", "20", "-t", "80", server.Path).Start();
        Assert.True(closed.Wait(TimeSpan.FromSeconds(10), TestContext.Current.CancellationToken));
        client.Write("y\n");
        Finished finished = client.WaitForEnd(TimeSpan.FromSeconds(10));
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains("rolled back, since the confirmation came too late, the tables are as before", finished.Errors);
    }

    [Fact]
    public void A_server_that_refuses_before_it_has_read_all_is_heard()
    {
        byte[] refusal = Written(new(VerdictStatus.Invalid, Pif.Host, 0, "not this one"));
        using ScriptedServer server = new(client =>
        {
            client.Send(Listing());
            client.ReadExactly(1);
            client.Send(refusal);
            return [];
        });
        Finished finished = new Command(Programs.Pesto, "-t", "80", server.Path).Run();
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains("not this one", finished.Errors);
    }

    [Fact]
    public void A_server_that_hangs_up_over_a_commit_leaves_it_open_what_is_in_force()
    {
        using ScriptedServer server = new(client =>
        {
            client.Send(Listing());
            ReadTables(client);
            client.Send([.. Valid, .. Outcome(0)]);
            client.ReadExactly(ApplyMessage.Size + MessageHead.Size);
            return [];
        });
        Finished finished = new Command(Programs.Pesto, "-t", "80", server.Path).Run();
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains("can't be known whether the change is in force", finished.Errors);
    }

    [Theory]
    [InlineData("<&-", 0)]
    [InlineData(">&-", 1)]
    [InlineData("2>&-", 0)]
    [InlineData("<&- >&- 2>&-", 1)]
    public void The_server_gets_nothing_that_was_for_a_closed_standard_descriptor(string closed, int exitStatus)
    {
        using ScriptedServer server = new(Listing());
        Finished finished = new Command("sh", "-c", $"exec \"$0\" \"$1\" {closed}", Programs.Pesto, server.Path).Run();
        Assert.Equal(exitStatus, finished.ExitStatus);
        Eventually.True(() => server.Received.Count == 1, "the client ends the exchange");
        Assert.Empty(server.Received[0]);
    }
}
