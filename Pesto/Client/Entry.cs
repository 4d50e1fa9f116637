using Pesto.Linux;
using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Client;

/// <summary>The client from its command line to its exit status.</summary>
static class Entry
{
    /// <summary>Milliseconds that a server gets to say what it has to say, and to put an update into force.</summary>
    const int Timeout = 10_000;

    /// <summary>
    /// Milliseconds for the look at what an update made of the tables. It tells about a server that went wrong, and
    /// is no reason to wait for one that has others to serve, or is gone.
    /// </summary>
    const int LookAgainTimeout = 1_000;

    /// <returns>0, or 1 if anything failed.</returns>
    public static int Run(string[] args)
    {
        try
        {
            Options options = Options.Parse(args);
            Message.Debugging = options.Debug;
            if (options.Print is null)
                Work(options);
            else if (StandardOutput.Write(options.Print) is Errno error and not Errno.None)
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

    static void Work(Options options)
    {
        using Exchange exchange = Exchange.Open(options.Path, Timeout);
        ServerState state = exchange.State;
        DebugState(options.Path, state);
        if (options.Commands.Count == 0)
        {
            Listing.Print("passt/pasta configuration", options.Path, state);
            return;
        }

        if (options.Show)
            Listing.Print("Previous configuration", options.Path, state);
        Edit.Apply(state, options.Commands);
        byte[] update = state.WriteUpdate();
        exchange.Update(update, Timeout);
        Message.Debug($"{options.Path}: the server took the update of {update.Length} bytes");
        CheckUpdate(options.Path, update);
        if (options.Show)
            Listing.Print("Updated configuration", options.Path, state);
    }

    /// <summary>
    /// Looks whether the server's tables now are those that were sent. Only a listing that says otherwise is a failure:
    /// the update was taken, and a server that ended since, or is busy with another client, does not make it undone.
    /// </summary>
    /// <exception cref="ProtocolException">The tables are others.</exception>
    static void CheckUpdate(string path, byte[] update)
    {
        ServerState now;
        try
        {
            using Exchange again = Exchange.Open(path, LookAgainTimeout);
            now = again.State;
        }
        catch (Exception e) when (e is ProtocolException or LinuxException)
        {
            Message.Debug($"the tables can't be compared with those sent: {e.Message}");
            return;
        }

        if (!now.WriteUpdate().AsSpan().SequenceEqual(update))
            throw new ProtocolException($"{path}: after the update, the server's tables are not those that were sent; it did not take them, or another client changed them since");
        Message.Debug($"{path}: the tables are those that were sent");
    }

    static void DebugState(string path, ServerState state)
    {
        Message.Debug($"{path}: protocol version {state.Version}");
        foreach (PifState pif in state.Pifs)
            Message.Debug($"{path}: pif {pif.Number} ({pif.Name}): {pif.Table.Rules.Length} rules, capabilities 0x{(uint)pif.Table.Capabilities:x}");
    }
}
