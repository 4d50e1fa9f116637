using Pesto.Linux;
using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Client;

/// <summary>An update to a server that knows transactions: it takes effect as a whole and the server says so, or it leaves no trace.</summary>
static class TransactionUpdate
{
    /// <summary>Milliseconds that the server gets for an answer; opening 20,000 sockets takes less than a second.</summary>
    const int Timeout = 30_000;

    /// <summary>Seconds by which the server waits longer for the commit than the user is given.</summary>
    const int Margin = 5;

    /// <exception cref="RefusedException">The server refuses the tables.</exception>
    /// <exception cref="ProtocolException">It does not keep to the protocol, or is gone.</exception>
    /// <exception cref="LinuxException">It does not answer.</exception>
    public static Outcome Run(Exchange exchange, Options options, ServerState before, ServerState wanted)
    {
        exchange.Send(Tables(wanted), Timeout);
        CheckVerdict(exchange.Await(MessageType.Verdict, Timeout), options.Path);
        if (options.DryRun)
        {
            Message.Debug($"{options.Path}: the tables are valid; nothing was changed");
            return new("dry-run", false, 0);
        }

        byte[] apply = new byte[ApplyMessage.Size];
        _ = new ApplyMessage(options.Confirm == 0 ? 0 : (uint)(options.Confirm + Margin)).Write(apply);
        exchange.Send(apply, Timeout);
        if (!OutcomeMessage.TryRead(exchange.Await(MessageType.Outcome, Timeout), out OutcomeMessage outcome))
            throw new ProtocolException($"{options.Path}: the server's outcome can't be understood");
        (List<Outcome.Failure> failures, int count) = Named(outcome, wanted, options.Path);

        // Rules that tolerate failures are named only if they got no port at all.
        bool failed = count > failures.Count || failures.Exists(f => !f.IsTolerated);
        Failures.Tell(failures, count, failed && !options.BestEffort ? Message.Error : Message.Warning);
        if (failed && !options.BestEffort)
        {
            RollBack(exchange, before, options.Path);
            Message.Error($"{options.Path}: rolled back, the tables are as before");
            return new("rolled-back", false, 1) { Failures = failures, FailureCount = count };
        }

        if (options.Confirm > 0 && !Confirmation.Obtain(options.Confirm, options.Check))
        {
            RollBack(exchange, before, options.Path);
            Message.Error($"{options.Path}: not confirmed, the tables are as before");
            return new("unconfirmed", false, 1) { Failures = failures, FailureCount = count };
        }

        DoneMessage done = End(exchange, MessageType.Commit, options.Path);
        if (done.Status != DoneStatus.Committed)
            throw new ProtocolException($"{options.Path}: the server rolled back{Why(done.Status)}, the tables are as before");
        (List<Outcome.Failure> late, int lateCount) = Named(done.Undone, wanted, options.Path);
        Failures.Tell(late, lateCount, Message.Error);
        if (lateCount > 0)
            Message.Error($"{options.Path}: the change is in force, but for these ports");
        return new("committed", true, lateCount == 0 ? 0 : 1) { Failures = [.. failures, .. late], FailureCount = count + lateCount };
    }

    /// <exception cref="ProtocolException">The tables are not as before.</exception>
    static void RollBack(Exchange exchange, ServerState before, string path)
    {
        DoneMessage done = End(exchange, MessageType.Rollback, path);
        if (done.Status == DoneStatus.Committed)
            throw new ProtocolException($"{path}: the server was to roll back, and says that the change is in force");
        (List<Outcome.Failure> lost, int count) = Named(done.Undone, before, path);
        Failures.Tell(lost, count, Message.Error);
        if (count > 0)
            throw new ProtocolException($"{path}: rolled back, but for these ports");
    }

    static string Why(DoneStatus status) => status switch
    {
        DoneStatus.TimedOut => ", since the confirmation came too late",
        DoneStatus.ProtocolError => ", since it did not understand the client",
        _ => "",
    };

    static byte[] Tables(ServerState wanted)
    {
        byte[] update = wanted.WriteUpdate();
        byte[] message = new byte[ClientHello.Size + MessageHead.Size + update.Length];
        int at = ClientHello.Write(message);
        at += new MessageHead(MessageType.Tables, (uint)update.Length).Write(message.AsSpan(at));
        update.CopyTo(message.AsSpan(at));
        return message;
    }

    static void CheckVerdict(byte[] body, string path)
    {
        if (!VerdictMessage.TryRead(body, out VerdictMessage verdict))
            throw new ProtocolException($"{path}: the server's verdict can't be understood");
        if (verdict.Status != VerdictStatus.Valid)
            throw new RefusedException($"{path}: the server refuses the update, its tables are as before: {RuleText.Printable(verdict.Text)}");
    }

    /// <summary>The failures with the rules that they are about.</summary>
    static (List<Outcome.Failure> Failures, int Count) Named(OutcomeMessage outcome, ServerState wanted, string path)
    {
        List<Outcome.Failure> failures = [];
        foreach (PortFailure failure in outcome.Named)
        {
            if (wanted.Find(failure.Pif) is not PifState pif || failure.Rule >= pif.Table.Rules.Length)
                throw new ProtocolException($"{path}: the server reports a rule that it was not sent");
            failures.Add(new(pif.Name, pif.Table.Rules[(int)failure.Rule], failure.Port, failure.Error));
        }

        return (failures, (int)outcome.Failures);
    }

    static DoneMessage End(Exchange exchange, MessageType how, string path)
    {
        byte[] message = new byte[MessageHead.Size];
        _ = new MessageHead(how, 0).Write(message);
        exchange.Send(message, Timeout);
        if (!DoneMessage.TryRead(exchange.Await(MessageType.Done, Timeout), out DoneMessage done))
            throw new ProtocolException($"{path}: what the server says at the end can't be understood: look at the tables");
        return done;
    }
}
