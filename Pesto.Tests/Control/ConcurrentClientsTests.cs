using Pesto.Protocol;
using Pesto.Rules;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Control;

public sealed class ConcurrentClientsTests
{
    const int Clients = 50, Rounds = 20;

    /// <summary>Each reads the tables, changes its own rule and sends them back: since what one reads is what it replaces, none undoes another's change.</summary>
    [Fact]
    public void Fifty_clients_at_once_lose_nothing_of_each_others_changes()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-q", "-t", "127.0.0.1/80");
        Exception?[] failures = new Exception?[Clients];
        Thread[] threads = [.. Enumerable.Range(0, Clients).Select(number => new Thread(() =>
        {
            try
            {
                for (int round = 0; round < Rounds; round++)
                {
                    Change(pesto.Control, rules => [.. rules, RuleOf(number)]);
                    Change(pesto.Control, rules => [.. rules.Where(rule => !rule.Equals(RuleOf(number)))]);
                }

                Change(pesto.Control, rules => [.. rules, RuleOf(number)]);
            }
            catch (Exception e)
            {
                failures[number] = e;
            }
        }))];
        foreach (Thread thread in threads)
            thread.Start();
        foreach (Thread thread in threads)
            thread.Join();
        Assert.All(failures, Assert.Null);

        HashSet<Rule> expected = [ServerTables.Rule("127.0.0.1/80"), .. Enumerable.Range(0, Clients).Select(RuleOf)];
        Assert.Equal(expected, ControlClient.Tables(pesto.Control).Of(Pif.Host).ToHashSet());
        Assert.Equal(
            expected.Select(rule => (int)rule.First).Order(),
            ListeningSocket.Of(pesto.Process, bed.Host).Select(socket => (int)socket.Port).Order());
    }

    static Rule RuleOf(int number) => ServerTables.Rule($"127.0.0.1/{1000 + number}");

    static void Change(string path, Func<Rule[], Rule[]> edit)
    {
        using ControlClient client = ControlClient.Greeted(path);
        Rule[] before = ServerTables.Of(client.State!).Of(Pif.Host), after = edit(before);
        Assert.Equal(1, Math.Abs(after.Length - before.Length));
        client.Send([.. ControlClient.Hello, .. ControlClient.TablesMessage(ServerTables.Host(after))]);
        Assert.Equal(VerdictStatus.Valid, client.ReadVerdict().Status);
        client.Send(ControlClient.ApplyMessage());
        Assert.Equal(0u, client.ReadOutcome().Failures);
        client.Send(ControlClient.CommitMessage);
        Assert.Equal(DoneStatus.Committed, client.ReadDone());
    }
}
