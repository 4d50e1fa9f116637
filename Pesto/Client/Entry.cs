using Pesto.Linux;
using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Client;

/// <summary>The client from its command line to its exit status.</summary>
static class Entry
{
    /// <summary>Milliseconds to wait for one's turn with a server that serves one client at a time.</summary>
    const int GreetingTimeout = 60_000;

    /// <returns>0, or 1 if anything failed.</returns>
    public static int Run(string[] args)
    {
        try
        {
            Options options = Options.Parse(args);
            Message.Debugging = options.Debug;
            if (options.Print is null)
                return Work(options);
            if (StandardOutput.Write(options.Print) is Errno error and not Errno.None)
                throw new LinuxException("standard output", error);
            return 0;
        }
        catch (UsageException e)
        {
            Message.Error(e.Message);
            _ = StandardOutput.WriteError(HelpText.Usage);
            return 1;
        }
        catch (Exception e) when (e is RuleException or ProtocolException or LinuxException)
        {
            Message.Error(e.Message);
            return 1;
        }
    }

    static int Work(Options options)
    {
        // A command that checks the new tables is the user's own, and may do what he may.
        if (options.Check is null)
            EnterSandbox();
        using Exchange exchange = Exchange.Open(options.Path, GreetingTimeout);
        ServerState state = exchange.State;
        DebugState(options.Path, state);
        if (options.Commands.Count == 0)
        {
            Report(options, "passt/pasta configuration", state, outcome: null);
            return 0;
        }

        if (options.Show && !options.Json)
            Report(options, "Previous configuration", state, outcome: null);
        ServerState before = state.Copy();
        Edit.Apply(state, options.Commands);
        Outcome outcome = state.HasTransactions
            ? TransactionUpdate.Run(exchange, options, state)
            : PlainUpdate.Run(exchange, options, before, state);
        if (options.Show || options.Json)
            Report(options, "Updated configuration", outcome.IsInForce ? state : before, outcome);
        return outcome.ExitStatus;
    }

    /// <summary>What the server sends is read with nothing at hand to do harm with.</summary>
    static void EnterSandbox()
    {
        Privileges.GainNoMore();
        Result filtered = AllowedCalls.ForClient();
        if (!filtered.Ok)
            Message.Debug($"going on without a filter of system calls: {filtered.Error.Text()}");
    }

    static void Report(Options options, string title, ServerState state, Outcome? outcome)
    {
        string text = options.Json ? Json.Text(options.Path, state, outcome) : Listing.Text(title, options.Path, state);
        Errno error = StandardOutput.Write(text);
        if (error != Errno.None)
            throw new LinuxException("standard output", error);
    }

    static void DebugState(string path, ServerState state)
    {
        Message.Debug($"{path}: protocol version {state.Version}");
        foreach (PifState pif in state.Pifs)
            Message.Debug($"{path}: pif {pif.Number} ({RuleText.Printable(pif.Name)}): {pif.Table.Rules.Length} rules, capabilities 0x{(uint)pif.Table.Capabilities:x}");
    }
}
