using System.Buffers.Binary;
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
        exchange.Send(Tables(wanted));
        CheckVerdict(exchange.Await(MessageType.Verdict, Timeout), options.Path);
        if (options.DryRun)
        {
            Message.Debug($"{options.Path}: the tables are valid; nothing was changed");
            return new("dry-run", false, 0);
        }

        byte[] apply = new byte[Transactions.HeadSize + 4];
        Transactions.WriteHead(apply, MessageType.Apply, 4);
        BinaryPrimitives.WriteUInt32BigEndian(apply.AsSpan(Transactions.HeadSize), options.Confirm == 0 ? 0 : (uint)(options.Confirm + Margin));
        exchange.Send(apply);
        (List<Outcome.Failure> failures, int count) = ReadOutcome(exchange.Await(MessageType.Outcome, Timeout), wanted, options.Path);

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

        byte[] done = End(exchange, MessageType.Commit, options.Path, out DoneStatus status);
        if (status != DoneStatus.Committed)
            throw new ProtocolException($"{options.Path}: the server rolled back{Why(status)}, the tables are as before");
        (List<Outcome.Failure> late, int lateCount) = ReadOutcome(done, wanted, options.Path);
        Failures.Tell(late, lateCount, Message.Error);
        if (lateCount > 0)
            Message.Error($"{options.Path}: the change is in force, but for these ports");
        return new("committed", true, lateCount == 0 ? 0 : 1) { Failures = [.. failures, .. late], FailureCount = count + lateCount };
    }

    /// <exception cref="ProtocolException">The tables are not as before.</exception>
    static void RollBack(Exchange exchange, ServerState before, string path)
    {
        byte[] done = End(exchange, MessageType.Rollback, path, out DoneStatus status);
        if (status == DoneStatus.Committed)
            throw new ProtocolException($"{path}: the server was to roll back, and says that the change is in force");
        (List<Outcome.Failure> lost, int count) = ReadOutcome(done, before, path);
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
        byte[] message = new byte[Transactions.HelloSize + Transactions.HeadSize + update.Length];
        Transactions.WriteHello(message);
        Transactions.WriteHead(message.AsSpan(Transactions.HelloSize), MessageType.Tables, update.Length);
        update.CopyTo(message.AsSpan(Transactions.HelloSize + Transactions.HeadSize));
        return message;
    }

    static void CheckVerdict(byte[] body, string path)
    {
        if (body.Length < Transactions.VerdictSize || body.Length != Transactions.VerdictSize + BinaryPrimitives.ReadUInt16BigEndian(body.AsSpan(9)))
            throw new ProtocolException($"{path}: the server's verdict can't be understood");
        if (BinaryPrimitives.ReadUInt32BigEndian(body) == (uint)VerdictStatus.Valid)
            return;
        string why = RuleText.Printable(Transactions.ReadText(body.AsSpan(Transactions.VerdictSize)));
        throw new RefusedException($"{path}: the server refuses the update, its tables are as before: {why}");
    }

    static (List<Outcome.Failure> Failures, int Count) ReadOutcome(ReadOnlySpan<byte> body, ServerState wanted, string path)
    {
        List<Outcome.Failure> failures = [];
        if (body.Length < Transactions.OutcomeSize)
            throw new ProtocolException($"{path}: the server's outcome can't be understood");
        uint count = BinaryPrimitives.ReadUInt32BigEndian(body);
        uint entries = BinaryPrimitives.ReadUInt32BigEndian(body[4..]);
        body = body[Transactions.OutcomeSize..];
        if (entries > Transactions.MostEntries || entries > count || count > int.MaxValue || body.Length != entries * Transactions.EntrySize)
            throw new ProtocolException($"{path}: the server's outcome can't be understood");
        for (; !body.IsEmpty; body = body[Transactions.EntrySize..])
        {
            (byte number, uint rule, ushort port, Errno error) = Transactions.ReadEntry(body);
            if (wanted.Find(number) is not PifState pif || rule >= pif.Table.Rules.Length)
                throw new ProtocolException($"{path}: the server reports a rule that it was not sent");
            failures.Add(new(pif.Name, pif.Table.Rules[(int)rule], port, error));
        }

        return (failures, (int)count);
    }

    /// <returns>What could not be done, in the form of an outcome.</returns>
    static byte[] End(Exchange exchange, MessageType how, string path, out DoneStatus status)
    {
        byte[] message = new byte[Transactions.HeadSize];
        Transactions.WriteHead(message, how, 0);
        exchange.Send(message);
        byte[] body = exchange.Await(MessageType.Done, Timeout);
        if (body.Length < sizeof(uint))
            throw new ProtocolException($"{path}: what the server says at the end can't be understood: look at the tables");
        status = (DoneStatus)BinaryPrimitives.ReadUInt32BigEndian(body);
        return body[sizeof(uint)..];
    }
}
