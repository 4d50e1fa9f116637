using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Namespace;
using Pesto.Forwarder.Reporting;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Startup;

/// <summary>
/// What the forwarder gives up once everything listens: who took it over would have sockets in two namespaces, and no user,
/// no privilege, no file and no system call beyond those that carry bytes.
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
    /// Each thread gives up its own capabilities and way to files: this one, the other side's and the runtime's. The rest
    /// is the whole process's.
    /// </summary>
    /// <param name="ownFiles">What is to be removed at the end. Whoever removes it, if this process can't any more, is noted there.</param>
    public static void Enter(ServeOptions options, NamespaceThread? other, Tables tables, Listeners listeners, OwnFiles ownFiles)
    {
        Files.SetMask(OwnerOnly);
        Sandbox sandbox = new(options);
        bool opensMore = OpensMore(options, tables);
        if (opensMore)
            OpenForLater(tables);
        Capability kept = KeptBy(options, opensMore);
        if (options.RunAs is null && Processes.User == 0 && !Reexecution.EnteredUserNamespace)
            ownFiles.Janitor = sandbox.BecomeNobody(ownFiles.All, other, listeners);
        // In a user namespace that is not the host's, privileges count for nothing on the host's side.
        other?.Run(() => sandbox.EnterThread(Reexecution.EnteredUserNamespace ? Capability.None : kept));
        FinalizerThread.Run(() => sandbox.EnterThread(Capability.None));
        sandbox.EnterThread(kept);
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

    /// <summary>What later tables need: low ports, and to take a socket off its interface, so that it gets no new connection before it is closed.</summary>
    static Capability KeptBy(ServeOptions options, bool opensMore) =>
        (opensMore ? Capability.NetBindService : Capability.None) | (options.ControlPath is not null ? Capability.NetRaw : Capability.None);

    /// <summary>Started by root, and not told who to be, it needs root's rights no longer.</summary>
    Janitor? BecomeNobody(ReadOnlySpan<(string Path, Files.FileIdentity Identity)> ownFiles, NamespaceThread? other, Listeners listeners)
    {
        Identity nobody = Identity.Nobody;
        Janitor? janitor = ownFiles.Length > 0 ? Janitor.Start(_landlock, ownFiles) : null;
        // Sockets that share a port for a moment must have one owner, and those of later tables are nobody's.
        listeners.ChangeOwner(nobody);
        Privileges.KeepCapabilitiesOnSetuid();
        other?.Run(Privileges.KeepCapabilitiesOnSetuid);
        Result became = Privileges.Become(nobody);
        if (!became.Ok)
            Log.Debug($"sandbox: still user 0, who can't become user {nobody.User} here: {became.Error.Text()}");
        return janitor;
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
