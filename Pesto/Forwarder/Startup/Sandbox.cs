using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Namespace;
using Pesto.Forwarder.Reporting;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Startup;

/// <summary>
/// What the forwarder gives up once everything listens. Code that an attacker got to run in it would have the sockets of two namespaces, and
/// no user's rights, no capability beyond two, no file, and no system call beyond those that carry bytes and open sockets.
/// </summary>
public sealed class Sandbox
{
    const int OwnerOnly = 0x3f;

    readonly ServeOptions _options;
    readonly List<string> _missing = [];
    readonly Landlock? _landlock;

    Sandbox(ServeOptions options)
    {
        _options = options;
        Result files = Landlock.Prepare(options.OwnFiles, out _landlock);
        if (!files.Ok)
            _missing.Add($"Landlock ({files.Error.Text()})");
    }

    /// <summary>
    /// Capabilities and Landlock rules belong to a thread, so each enters them: this one, the other side's and the runtime's. User ids, the
    /// filter of system calls and the dumpable flag are changed for the whole process.
    /// </summary>
    /// <param name="ownFiles">What is to be removed at the end; gets a janitor where this process will not be able to.</param>
    /// <param name="routing">The same, in the container's network namespace; null for nothing.</param>
    public static void Enter(ServeOptions options, NamespaceThread? other, Tables tables, Listeners listeners, OwnFiles ownFiles, ClientAddressRouting? routing)
    {
        Files.SetMask(OwnerOnly);
        Sandbox sandbox = new(options);
        bool opensMore = OpensMore(options, tables);
        if (opensMore)
            OpenForLater(tables);
        Capability kept = KeptBy(options, opensMore);
        bool becomesNobody = options.RunAs is null && Processes.User == 0 && !Reexecution.EnteredUserNamespace;
        ownFiles.Janitor = sandbox.LeaveJanitor(becomesNobody ? ownFiles.All : [], routing);
        if (becomesNobody)
            BecomeNobody(other, listeners);
        // Capabilities of a container's user namespace do not count in the host's network namespace.
        other?.Run(() => sandbox.EnterThread(Reexecution.EnteredUserNamespace ? Capability.None : kept));
        FinalizerThread.Run(() => sandbox.EnterThread(Capability.None));
        sandbox.EnterThread(kept | (routing?.Needs ?? Capability.None));
        sandbox._landlock?.Close();
        Privileges.SetNotDumpable();
        sandbox.FilterSystemCalls();
        if (sandbox._missing.Count > 0)
            Log.Warn($"sandbox: going on without what this kernel does not have: {string.Join(", ", sandbox._missing)}");
    }

    /// <summary>Whether sockets may be wanted later that are not open yet: by clients, or by "auto" rules.</summary>
    static bool OpensMore(ServeOptions options, Tables tables)
    {
        bool opensMore = options.ControlPath is not null;
        for (int i = 0; i < tables.Pifs.Length; i++)
        {
            foreach (ref readonly Rule rule in tables.Rules(i, tables.Active))
                opensMore |= rule.IsScan;
        }

        return opensMore;
    }

    /// <summary>Opens the netlink sockets that commits and "auto" rules read from, which the filter of system calls does not let be opened.</summary>
    static void OpenForLater(Tables tables)
    {
        foreach (Tables.PifEntry pif in tables.Pifs)
        {
            _ = pif.Listens.HalfOpen;
            if (pif.Capabilities.HasFlag(Capabilities.Scan))
                _ = pif.Connects.SocketList;
        }
    }

    /// <summary>CAP_NET_BIND_SERVICE for ports below 1024 of later tables; CAP_NET_RAW to rebind a socket from one interface to another (Sockets.Quiesce).</summary>
    static Capability KeptBy(ServeOptions options, bool opensMore) =>
        (opensMore ? Capability.NetBindService : Capability.None) | (options.ControlPath is not null ? Capability.NetRaw : Capability.None);

    /// <summary>A child that removes what this process has made and will not be able to remove any more; null if there is nothing.</summary>
    Janitor? LeaveJanitor(ReadOnlySpan<(string Path, Files.FileIdentity Identity)> ownFiles, ClientAddressRouting? routing)
    {
        if (ownFiles.Length == 0 && routing is null)
            return null;
        Janitor? janitor = Janitor.Start(_landlock, ownFiles, routing is null ? null : routing.Remove, routing?.RemovalDescriptors);
        if (janitor is not null)
            routing?.LeaveRemoval();
        return janitor;
    }

    /// <summary>Started by root without --runas: user 0 is not needed any more.</summary>
    static void BecomeNobody(NamespaceThread? other, Listeners listeners)
    {
        Identity nobody = Identity.Nobody;
        // SO_REUSEPORT (PortTakeover) needs sockets of one owner, and those that are opened later belong to "nobody".
        listeners.ChangeOwner(nobody);
        Privileges.KeepCapabilitiesOnSetuid();
        other?.Run(Privileges.KeepCapabilitiesOnSetuid);
        Result became = Privileges.Become(nobody);
        if (!became.Ok)
            Log.Debug($"sandbox: still user 0, who can't become user {nobody.User} here: {became.Error.Text()}");
    }

    void EnterThread(Capability kept)
    {
        Privileges.Keep(kept);
        if (_landlock?.Enter() is { Ok: false } failed)
            _missing.Add($"Landlock ({failed.Error.Text()})");
    }

    void FilterSystemCalls()
    {
        Result filtered = AllowedCalls.ForForwarder(removesFiles: _options.OwnFiles.Length > 0);
        if (!filtered.Ok)
            _missing.Add($"a filter of system calls ({filtered.Error.Text()})");
    }
}
