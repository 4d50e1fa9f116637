using System.Runtime.InteropServices;
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

    readonly ServeOptions options;
    readonly Counters counters = new();
    readonly Loop loop = new();
    readonly Limits limits;
    readonly Tables tables;
    readonly Listeners listeners;
    readonly TcpFlows tcp;
    readonly Transaction transaction;
    readonly Statistics statistics;
    readonly SelfForwarding? selfForwarding;
    readonly int mostSockets;
    OtherSide? otherSide;
    NamespaceWatch? namespaceWatch;

    public Service(ServeOptions options)
    {
        this.options = options;
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
        this.mostSockets = Math.Max(descriptors - ReservedDescriptors, 16);

        OwnSide own = new();
        Side host = options.NetnsPath is null ? own : this.EnterNamespace(options.NetnsPath);
        Targets targets = new(
            options.TargetV4 ?? options.TargetV6 ?? Address.LoopbackV4,
            options.TargetV6 ?? options.TargetV4 ?? Address.LoopbackV6);
        this.selfForwarding = host == own ? new(targets) : null;

        this.limits = new(this.loop);
        this.tables = new(this.Pifs(host, own));
        this.listeners = new(this.mostSockets);
        SocketSettings settings = new(options.FreeBind, options.Keepalive);
        TcpTimes times = new(options.ConnectTimeout, options.IdleTimeout, options.HalfClosedTimeout);
        this.tcp = new(this.loop, this.counters, this.limits, descriptors / TcpFlows.DescriptorsEach, this.mostSockets, times, settings.Keepalive);
        int udpFlows = options.UdpMaxFlows == 0 ? descriptors / 2 : options.UdpMaxFlows;
        UdpFlows udp = new(this.loop, this.counters, this.limits, this.tables, this.listeners, targets, new(udpFlows, this.mostSockets, options.UdpTimeout, options.UdpStreamTimeout));
        Acceptor acceptor = new(this.loop, this.tables, this.listeners, this.tcp, udp, this.limits, targets, this.counters, this.mostSockets);
        this.transaction = new(this.loop, this.tables, this.listeners, acceptor, this.counters, settings);
        if (options.NetnsPath is not null)
            this.transaction.Scan = new(this.loop, this.tables, this.listeners, acceptor, this.transaction, targets, this.counters, settings);
        this.statistics = new(this.loop, this.counters, this.tcp, this.listeners, options.StatsInterval);
        this.limits.Numbers = () => $"{this.tcp.Open} TCP flows, {this.counters.UdpOpen} UDP flows of {udpFlows}, {this.listeners.Count} listening sockets, {descriptors} descriptors";
    }

    public int Run()
    {
        if (!this.OpenFirstTables())
            return 1;
        Janitor? janitor = null;
        List<(string Path, Files.FileIdentity Identity)> ownFiles = [];
        if (this.options.ControlPath is not null)
        {
            Session session = new(this.loop, this.tables, this.transaction, this.options.ConfTimeout, this.mostSockets, this.selfForwarding);
            ControlSocket control = new(this.loop, session, new ListeningUnixSocket(this.options.ControlPath), Namespaces.EveryUserIsMapped);
            ownFiles.Add(control.File);
        }

        try
        {
            SignalWatch signals = new(this.loop, this.statistics);
            if (this.options.PidPath is not null)
                ownFiles.Add((this.options.PidPath, WritePid(this.options.PidPath)));

            Log.Info($"serving: {this.listeners.Count} listening sockets{(this.options.ControlPath is null ? "" : ", control socket ")}{this.options.ControlPath}");
            if (!this.options.Foreground)
                this.LeaveTerminal();
            if (!this.options.NoSandbox)
                janitor = this.EnterSandbox(CollectionsMarshal.AsSpan(ownFiles));
            Launch.Ready();
            this.loop.Run();
            if (this.namespaceWatch is { IsGone: true })
                Log.Info($"ending: {this.options.NetnsPath} is gone");
            else
                Log.Info($"ending: signal {signals.Last}");
        }
        finally
        {
            foreach ((string path, Files.FileIdentity identity) in ownFiles)
                Files.RemoveIfStill(path, identity);
            janitor?.Finish();
        }

        return 0;
    }

    /// <summary>Opens what later commits and scans need and could not open any more, then gives up the rest.</summary>
    Janitor? EnterSandbox(ReadOnlySpan<(string Path, Files.FileIdentity Identity)> ownFiles)
    {
        bool opensMore = this.options.ControlPath is not null;
        for (int i = 0; i < this.tables.Pifs.Length; i++)
        {
            foreach (ref readonly Rule rule in this.tables.Rules(i, this.tables.Active))
                opensMore |= rule.IsScan;
        }

        foreach (Tables.PifEntry pif in this.tables.Pifs)
        {
            if (!opensMore)
                break;
            _ = pif.Listens.Handshakes;
            if (pif.Capabilities.HasFlag(Capabilities.Scan))
                _ = pif.Connects.SocketList;
        }

        return Sandbox.Enter(this.options, this.otherSide, this.listeners, opensMore, ownFiles);
    }

    void LeaveTerminal()
    {
        if (this.options.LogPath is null)
            Log.ToSystem();
        Launch.LeaveTerminal();
    }

    /// <summary>Moves this thread, the loop's, into the namespace and leaves another behind on the host's side.</summary>
    OtherSide EnterNamespace(string path)
    {
        int fd = Files.Open(path, Files.ReadOnly).OrThrow($"network namespace {path}");
        // Both sides would be one, and a rule that keeps the port would lead back to itself, connection by connection.
        if (Files.LookBehind("/proc/self/ns/net", out Files.FileIdentity own).Ok && Files.IdentityOf(fd) == own)
            throw new UsageException($"network namespace {path} is the one that this is started in: to forward within it, use --target");
        OtherSide host = this.otherSide = new();
        Result entered = Namespaces.EnterNetwork(fd);
        // Where it was seen before that there is a way, what gets lost on it is what a user who is not root may do.
        entered.OrThrow(entered.Is(Errno.EPERM) && !this.options.NetnsOnly
            ? $"entering network namespace {path} (its user namespace does not have this user as root: then nsenter of util-linux 2.40 or newer is needed)"
            : $"entering network namespace {path}");
        if (!this.options.NoNetnsQuit)
            this.namespaceWatch = new(this.loop, path, Files.IdentityOf(fd));
        Descriptors.Close(fd);
        return host;
    }

    Tables.PifEntry[] Pifs(Side host, Side target)
    {
        Capabilities families = (this.options.NoV4 ? 0 : Capabilities.V4) | (this.options.NoV6 ? 0 : Capabilities.V6);
        Capabilities protocols = (this.options.NoTcp ? 0 : Capabilities.Tcp) | (this.options.NoUdp ? 0 : Capabilities.Udp);
        Capabilities both = families | protocols | Capabilities.Interface;
        if (this.options.NetnsPath is null)
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
        for (int i = 0; i < this.tables.Pifs.Length; i++)
            wanted[i] = new(this.tables.Pifs[i].Capabilities);
        foreach ((PortOption option, string text) in this.options.Specifiers)
        {
            int pif = option.IsOutbound ? 1 : 0;
            if (pif >= this.tables.Pifs.Length)
                throw new UsageException($"{option} {text}: there is no namespace to forward from, give --netns");
            try
            {
                wanted[pif].Apply(Specifier.Parse(text, option, this.tables.Pifs[pif].Capabilities, ephemeral));
            }
            catch (RuleException wrong)
            {
                throw new RuleException($"{option} {text}: {wrong.Message}");
            }
        }

        this.tables.ClearShadow();
        for (int i = 0; i < this.tables.Pifs.Length; i++)
        {
            foreach (ref readonly Rule rule in wanted[i].Rules)
                _ = this.tables.AddToShadow(i, in rule, out int _);
        }

        int sockets = this.tables.SocketsWanted(this.tables.Shadow);
        if (sockets > this.mostSockets)
            throw new RuleException($"{sockets} listening sockets are wanted, and {this.mostSockets} are possible under the limit of descriptors");
        if (this.selfForwarding?.Find(this.tables, this.tables.Shadow) is string loops)
            throw new RuleException(loops);

        this.transaction.Apply(commit: true, () => { });
        this.transaction.RunToEnd();
        return this.ReportFailures();
    }

    /// <summary>False if a port failed that was asked for by number, or if all did.</summary>
    unsafe bool ReportFailures()
    {
        bool strict = false;
        foreach (ref readonly Transaction.Failure failure in this.transaction.Failures)
        {
            Rule* rule = this.tables.Rule(failure.Pif, this.tables.Active, failure.Rule);
            strict |= !rule->IsWeak;
            Log.Error($"{BindFailure.Text(in *rule, failure.Port, failure.Error)}");
        }

        if (this.transaction.FailureCount > this.transaction.Failures.Length)
            Log.Error($"and {this.transaction.FailureCount - this.transaction.Failures.Length} more ports");
        return !strict && (this.transaction.FailureCount == 0 || this.listeners.Count > 0);
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
        if (Files.Look(path, out Files.FileIdentity old).Ok && old.IsRegular)
            _ = Files.Remove(path).Ok;
        const int Readable = 0x1a4;
        int fd = Files.Open(path, Files.WriteOnly | Files.Create | Files.Truncate, Readable).OrThrow($"pid file {path}");
        Descriptors.WriteAll(fd, System.Text.Encoding.ASCII.GetBytes($"{Processes.Id}\n")).OrThrow($"pid file {path}");
        Files.FileIdentity identity = Files.IdentityOf(fd);
        Descriptors.Close(fd);
        return identity;
    }
}
