using System.Runtime.InteropServices;
using Pesto.CommandLine;
using Pesto.Forwarder.Accepting;
using Pesto.Forwarder.Commit;
using Pesto.Forwarder.Control;
using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Loop;
using Pesto.Forwarder.Namespace;
using Pesto.Forwarder.Reporting;
using Pesto.Forwarder.Startup;
using Pesto.Forwarder.Tcp;
using Pesto.Forwarder.Udp;
using Pesto.Linux;
using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Forwarder;

/// <summary>A running forwarder: puts the parts together, opens the first tables, runs the loop, cleans up.</summary>
public sealed class Service
{
    /// <summary>Descriptors that are kept for what is no flow and no listening socket: log, control, pipes.</summary>
    const int ReservedDescriptors = 128;

    const int MostDescriptors = 1 << 20;

    readonly ServeOptions _options;
    readonly Counters _counters = new();
    readonly EventLoop _loop = new();
    readonly Backpressure _limits;
    readonly Tables _tables;
    readonly Listeners _listeners;
    readonly TcpFlows _tcp;
    readonly Transaction _transaction;
    readonly Statistics _statistics;
    readonly SelfForwarding? _selfForwarding;
    readonly int _mostSockets;
    NamespaceThread? _otherSide;
    NamespaceWatch? _namespaceWatch;

    public Service(ServeOptions options)
    {
        _options = options;
        Log.SetLevel(options.Quiet, options.Debug);
        if (options.LogPath is not null)
        {
            const int OwnerOnly = 0x180;
            int file = Files.Open(options.LogPath, Files.WriteOnly | Files.Create | Files.Append, OwnerOnly).OrThrow($"log file {options.LogPath}");
            Log.WriteTo(file, withTime: true);
        }

        else
        {
            Log.NeverWaitForTerminal();
        }

        Processes.IgnoreBrokenPipes();
        int descriptors = (int)Math.Min(Processes.RaiseDescriptorLimit(), MostDescriptors);
        _mostSockets = Math.Max(descriptors - ReservedDescriptors, 16);

        CurrentNamespace own = new();
        NetworkNamespace host = options.NetnsPath is null ? own : EnterNamespace(options.NetnsPath);
        Targets targets = new(
            options.TargetV4 ?? options.TargetV6 ?? Address.LoopbackV4,
            options.TargetV6 ?? options.TargetV4 ?? Address.LoopbackV6);
        _selfForwarding = host == own ? new(targets) : null;

        _limits = new(_loop);
        _tables = new(Pifs(host, own));
        _listeners = new(_mostSockets);
        SocketSettings settings = new(options.FreeBind, options.Keepalive);
        TcpTimes times = new(options.ConnectTimeout, options.IdleTimeout, options.HalfClosedTimeout);
        _tcp = new(_loop, _counters, _limits, descriptors / TcpFlows.DescriptorsEach, _mostSockets, times, settings.Keepalive);
        int udpFlows = options.UdpMaxFlows == 0 ? descriptors / 2 : options.UdpMaxFlows;
        UdpFlows udp = new(_loop, _counters, _limits, _tables, _listeners, targets, new(udpFlows, _mostSockets, options.UdpTimeout, options.UdpStreamTimeout));
        Acceptor acceptor = new(_loop, _tables, _listeners, _tcp, udp, _limits, targets, _counters, _mostSockets);
        PortTakeover takeover = new(_tables, _listeners);
        ListenerOpener opener = new(_tables, _listeners, takeover, _counters, settings);
        ListenerCloser closer = new(_tables, _listeners, acceptor, takeover, _counters);
        AutoForward? auto = options.NetnsPath is null ? null : new(_loop, _tables, _listeners, acceptor, opener, closer, targets, _counters);
        _transaction = new(_loop, _tables, _listeners, acceptor, opener, closer, auto, _counters);
        _ = new InterfaceWatch(_loop, _tables, _listeners, acceptor, opener, closer, _transaction);
        _statistics = new(_loop, _counters, _tcp, _listeners, options.StatsInterval);
        _limits.Numbers = () => $"{_tcp.Open} TCP flows, {_counters.UdpOpen} UDP flows of {udpFlows}, {_listeners.Count} listening sockets, {descriptors} descriptors";
    }

    public int Run()
    {
        if (!OpenFirstTables())
            return 1;
        Janitor? janitor = null;
        List<(string Path, Files.FileIdentity Identity)> ownFiles = [];
        if (_options.ControlPath is not null)
        {
            Session session = new(_loop, _tables, _transaction, _options.ConfTimeout, _mostSockets, _selfForwarding);
            ControlSocket control = new(_loop, session, new ListeningUnixSocket(_options.ControlPath), Namespaces.EveryUserIsMapped);
            ownFiles.Add(control.File);
        }

        try
        {
            SignalWatch signals = new(_loop, _statistics);
            if (_options.PidPath is not null)
                ownFiles.Add((_options.PidPath, WritePid(_options.PidPath)));

            Log.Info($"serving: {_listeners.Count} listening sockets{(_options.ControlPath is null ? "" : ", control socket ")}{_options.ControlPath}");
            if (!_options.Foreground)
                LeaveTerminal();
            if (!_options.NoSandbox)
                janitor = EnterSandbox(CollectionsMarshal.AsSpan(ownFiles));
            Reexecution.Ready();
            _loop.Run();
            if (_namespaceWatch is { IsGone: true })
                Log.Info($"ending: {_options.NetnsPath} is gone");
            else
                Log.Info($"ending: signal {signals.Last}");
        }
        finally
        {
            foreach ((string path, Files.FileIdentity identity) in ownFiles)
                Files.UnlinkIfStill(path, identity);
            janitor?.Finish();
        }

        return 0;
    }

    /// <summary>Opens what later commits and scans need and could not open any more, then gives up the rest.</summary>
    Janitor? EnterSandbox(ReadOnlySpan<(string Path, Files.FileIdentity Identity)> ownFiles)
    {
        bool opensMore = _options.ControlPath is not null;
        for (int i = 0; i < _tables.Pifs.Length; i++)
        {
            foreach (ref readonly Rule rule in _tables.Rules(i, _tables.Active))
                opensMore |= rule.IsScan;
        }

        foreach (Tables.PifEntry pif in _tables.Pifs)
        {
            if (!opensMore)
                break;
            _ = pif.Listens.HalfOpen;
            if (pif.Capabilities.HasFlag(Capabilities.Scan))
                _ = pif.Connects.SocketList;
        }

        return Sandbox.Enter(_options, _otherSide, _listeners, opensMore, ownFiles);
    }

    void LeaveTerminal()
    {
        if (_options.LogPath is null)
            Log.ToSystem();
        Reexecution.LeaveTerminal();
    }

    /// <summary>Moves this thread, the loop's, into the namespace and leaves another behind on the host's side.</summary>
    NamespaceThread EnterNamespace(string path)
    {
        int fd = Files.Open(path, Files.ReadOnly).OrThrow($"network namespace {path}");
        // Both sides would be one, and a rule that keeps the port would lead back to itself, connection by connection.
        if (Files.Stat("/proc/self/ns/net", out Files.FileIdentity own).Ok && Files.Fstat(fd) == own)
            throw new UsageException($"network namespace {path} is the one that this is started in: to forward within it, use --target");
        NamespaceThread host = _otherSide = new();
        Result entered = Namespaces.EnterNetwork(fd);
        // Where it was seen before that there is a way, what gets lost on it is what a user who is not root may do.
        entered.OrThrow(entered.Is(Errno.EPERM) && !_options.NetnsOnly
            ? $"entering network namespace {path} (its user namespace does not have this user as root: then nsenter of util-linux 2.40 or newer is needed)"
            : $"entering network namespace {path}");
        if (!_options.NoNetnsQuit)
            _namespaceWatch = new(_loop, path, Files.Fstat(fd));
        Descriptors.Close(fd);
        return host;
    }

    Tables.PifEntry[] Pifs(NetworkNamespace host, NetworkNamespace target)
    {
        Capabilities families = (_options.NoV4 ? 0 : Capabilities.V4) | (_options.NoV6 ? 0 : Capabilities.V6);
        Capabilities protocols = (_options.NoTcp ? 0 : Capabilities.Tcp) | (_options.NoUdp ? 0 : Capabilities.Udp);
        Capabilities both = families | protocols | Capabilities.Interface;
        if (_options.NetnsPath is null)
            return [new(Pif.Host, Pif.HostName, both, host, target)];
        // What listens in a target that is an address can't be found out.
        both |= Capabilities.Scan;
        return [new(Pif.Host, Pif.HostName, both, host, target), new(Pif.Splice, Pif.SpliceName, both, target, host)];
    }

    /// <summary>Reads the specifiers of the command line and opens what they want; says what can't be had.</summary>
    bool OpenFirstTables()
    {
        PortRange ephemeral = EphemeralPorts();
        RuleTable[] wanted = new RuleTable[Tables.PifCount];
        for (int i = 0; i < _tables.Pifs.Length; i++)
            wanted[i] = new(_tables.Pifs[i].Capabilities);
        foreach ((PortOption option, string text) in _options.Specifiers)
        {
            int pif = option.IsOutbound ? 1 : 0;
            if (pif >= _tables.Pifs.Length)
                throw new UsageException($"{option} {text}: there is no namespace to forward from, give --netns");
            try
            {
                wanted[pif].Apply(Specifier.Parse(text, option, _tables.Pifs[pif].Capabilities, ephemeral));
            }
            catch (RuleException wrong)
            {
                throw new RuleException($"{option} {text}: {wrong.Message}");
            }
        }

        _tables.ClearShadow();
        for (int i = 0; i < _tables.Pifs.Length; i++)
        {
            foreach (ref readonly Rule rule in wanted[i].Rules)
                _ = _tables.AddToShadow(i, in rule, out int _);
        }

        int sockets = _tables.SocketsWanted(_tables.Shadow);
        if (sockets > _mostSockets)
            throw new RuleException($"{sockets} listening sockets are wanted, and {_mostSockets} are possible under the limit of descriptors");
        if (_selfForwarding?.Find(_tables, _tables.Shadow) is string loops)
            throw new RuleException(loops);

        _transaction.Apply(commit: true, () => { });
        _transaction.RunToEnd();
        return ReportFailures();
    }

    /// <summary>False if a port failed that was asked for by number, or if all did.</summary>
    unsafe bool ReportFailures()
    {
        bool strict = false;
        foreach (ref readonly ListenFailure failure in _transaction.Failures)
        {
            Rule* rule = _tables.Rule(failure.Pif, _tables.Active, failure.Rule);
            strict |= !rule->IsWeak;
            Log.Error($"{BindFailure.Text(in *rule, failure.Port, failure.Error)}");
        }

        if (_transaction.FailureCount > _transaction.Failures.Length)
            Log.Error($"and {_transaction.FailureCount - _transaction.Failures.Length} more ports");
        return !strict && (_transaction.FailureCount == 0 || _listeners.Count > 0);
    }

    static PortRange EphemeralPorts()
    {
        Span<byte> text = stackalloc byte[64];
        return Files.Read("/proc/sys/net/ipv4/ip_local_port_range", text, out int length).Ok
            && PortRange.TryParseSysctl(System.Text.Encoding.ASCII.GetString(text[..length]), out PortRange range)
                ? range
                : PortRange.UsualEphemeral;
    }

    static Files.FileIdentity WritePid(string path)
    {
        // A new file, even where there is one: who wrote that one takes his own away at his end, and not this.
        if (Files.Lstat(path, out Files.FileIdentity old).Ok && old.IsRegular)
            _ = Files.Unlink(path).Ok;
        const int Readable = 0x1a4;
        int fd = Files.Open(path, Files.WriteOnly | Files.Create | Files.Truncate, Readable).OrThrow($"pid file {path}");
        Descriptors.WriteAll(fd, System.Text.Encoding.ASCII.GetBytes($"{Processes.Id}\n")).OrThrow($"pid file {path}");
        Files.FileIdentity identity = Files.Fstat(fd);
        Descriptors.Close(fd);
        return identity;
    }
}
