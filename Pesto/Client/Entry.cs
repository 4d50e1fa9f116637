using Pesto.CommandLine;
using Pesto.Linux;
using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Client;

/// <summary>The client from its command line to its exit status.</summary>
static class Entry
{
    /// <summary>Milliseconds to wait for one's turn with a server that serves one client at a time.</summary>
    const int GreetingTimeout = 60_000;

    const int MostAttempts = 4;

    /// <returns>0, or 1 if anything failed.</returns>
    public static int Run(string[] args)
    {
        // Else the connection to the server gets such a number, and what is to be printed.
        Descriptors.FillStandard(failing: true);
        Options? options = null;
        try
        {
            options = Options.Parse(args);
            Message.Debugging = options.Debug;
            if (options.Print is null)
                return Work(options);
            return Print(options.Print, outcome: null);
        }
        catch (UsageException e)
        {
            Message.Error(e.Message);
            _ = StandardOutput.WriteError(Options.Role.Usage());
            return 1;
        }
        catch (Exception e) when (e is RuleException or ProtocolException or LinuxException or RefusedException)
        {
            Message.Error(e.Message);
            if (options is { Json: true })
                _ = StandardOutput.Write(Json.Failure(options.Path, e is RefusedException ? "refused" : "failed", e.Message));
            return 1;
        }
    }

    /// <summary>
    /// Where many clients wait, the server drops one that has not sent anything within milliseconds, which a busy machine may not give it in time.
    /// By its next turn those that stall have been dropped.
    /// </summary>
    static int Work(Options options)
    {
        // The --check command runs with all that its user may do.
        if (options.Check is null)
            EnterSandbox();
        DroppedException? dropped = null;
        for (int attempt = 1; attempt <= MostAttempts; attempt++)
        {
            try
            {
                return WorkOnce(options);
            }
            catch (DroppedException e)
            {
                Message.Debug($"{e.Message}: trying again");
                dropped = e;
            }
            catch (LinuxException) when (dropped is not null)
            {
                // It is gone altogether: what it did first tells more.
                break;
            }
        }

        throw dropped!;
    }

    static int WorkOnce(Options options)
    {
        using Exchange exchange = Exchange.Open(options.Path, GreetingTimeout);
        ServerState state = exchange.State;
        DebugState(options.Path, state);
        if (options.Commands.Count == 0)
            return Report(options, "passt/pasta configuration", state, outcome: null);
        if (options.Show && !options.Json && Report(options, "Previous configuration", state, outcome: null) != 0)
            return 1;
        ServerState before = state.Copy();
        Edit.Apply(state, options.Commands);
        Outcome outcome = state.HasTransactions
            ? TransactionUpdate.Run(exchange, options, before, state)
            : PlainUpdate.Run(exchange, options, before, state);
        bool reported = !(options.Show || options.Json) || Report(options, "Updated configuration", outcome.IsInForce ? state : before, outcome) == 0;
        return reported ? outcome.ExitStatus : 1;
    }

    /// <summary>Before anything that the server sends is read.</summary>
    static void EnterSandbox()
    {
        Privileges.SetNoNewPrivileges();
        Result filtered = AllowedCalls.ForClient();
        if (!filtered.Ok)
            Message.Debug($"going on without a filter of system calls: {filtered.Error.Text()}");
    }

    static int Report(Options options, string title, ServerState state, Outcome? outcome) =>
        Print(options.Json ? Json.Text(options.Path, state, outcome) : Listing.Text(title, options.Path, state), outcome);

    /// <returns>The exit status: 1 if it could not be printed.</returns>
    static int Print(string text, Outcome? outcome)
    {
        Errno error = StandardOutput.Write(text);
        if (error == Errno.None)
            return 0;
        // The exit status alone would say that nothing has changed.
        Message.Error($"standard output: {error.Text()}{(outcome is { IsInForce: true } ? "; the change is in force all the same" : "")}");
        return 1;
    }

    static void DebugState(string path, ServerState state)
    {
        Message.Debug($"{path}: protocol version {state.Version}");
        foreach (PifState pif in state.Pifs)
            Message.Debug($"{path}: pif {pif.Number} ({RuleText.Printable(pif.Name)}): {pif.Table.Rules.Length} rules, capabilities 0x{(uint)pif.Table.Capabilities:x}");
    }
}
