using Pesto.Linux;
using Pesto.Protocol;

namespace Pesto.Client;

/// <summary>
/// An update to a passt or pasta, which takes it or not and tells nothing of ports that it could not open. So look
/// before, whether ports are free, and after, whether the tables are those that were sent.
/// </summary>
static class PlainUpdate
{
    /// <summary>Milliseconds that the server gets to put the update in force.</summary>
    const int Timeout = 30_000;

    /// <summary>
    /// Milliseconds for the look at what an update made of the tables. It tells about a server that went wrong, and
    /// is no reason to wait for one that has others to serve, or is gone.
    /// </summary>
    const int LookAgainTimeout = 1_000;

    /// <exception cref="ProtocolException">The server does not take the update.</exception>
    /// <exception cref="LinuxException">It does not get to an end in time.</exception>
    public static Outcome Run(Exchange exchange, Options options, ServerState before, ServerState wanted)
    {
        if (options.Confirm > 0)
            throw new ProtocolException($"{options.Path}: --confirm needs a server that can roll back: \"pesto serve\", not passt or pasta");
        List<Outcome.Failure> failures = options.NoProbe ? [] : Probe.Run(exchange, before, wanted);
        Failures.Tell(failures, failures.Count, options.BestEffort ? Message.Warning : Message.Error);
        if (failures.Count > 0 && !options.BestEffort)
        {
            Message.Error($"{options.Path}: nothing was sent, the tables are as before (--no-probe sends all the same)");
            return new("refused", false, 1) { Failures = failures, FailureCount = failures.Count };
        }

        if (options.DryRun)
            return new("dry-run", false, 0);
        byte[] update = wanted.WriteUpdate();
        exchange.Update(update, Timeout);
        Message.Debug($"{options.Path}: the server took the update of {update.Length} bytes");
        Check(options.Path, update);
        return new("committed", true, 0) { Failures = failures, FailureCount = failures.Count };
    }

    /// <summary>
    /// Looks whether the server's tables now are those that were sent. Only a listing that says otherwise is a failure:
    /// the update was taken, and a server that ended since, or is busy with another client, does not make it undone.
    /// </summary>
    /// <exception cref="ProtocolException">The tables are others.</exception>
    static void Check(string path, byte[] update)
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
}
