using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Namespace;

/// <summary>
/// What brings a container's answers back to sockets that are bound to a client's address, though the way to the client leads elsewhere. All of it is
/// in the container's network namespace, is made once, before anything listens, and concerns only packets that carry the mark or answer those:
/// <list type="bullet">
/// <item>What those sockets send is marked. A table of routes takes every address for one of this host's; a rule has marked packets use it.</item>
/// <item>TCP: <c>tcp_fwmark_accept</c> gives an accepted socket the mark of the SYN, <c>fwmark_reflect</c> a reset or an ICMP error that of its cause.</item>
/// <item>UDP: a set of nf_tables notes whoever sends a marked datagram to whichever port; what is sent from that port back to it gets the mark, and a new
/// route. The route before that must not fail, hence two rules for UDP packets from ports that servers have: for those from loopback to elsewhere,
/// and, behind all other rules, for those that have no route. Entries live as long as a flow, and are removed with it by a datagram with the mark behind the first.</item>
/// </list>
/// Rules, routes and settings are shared by all forwarders in a namespace that use the same mark; the last one removes them. They carry a protocol number,
/// and the route's metric tells what the settings were, so one that starts alone removes what one that was killed has left. The table of nf_tables is each
/// forwarder's own: the kernel removes it with the socket that made it.
/// </summary>
public sealed class ClientAddressRouting
{
    /// <summary>By which rules and routes of this kind are known: a number that no routing daemon has (/etc/iproute2/rt_protos).</summary>
    public const byte RouteProtocol = 112;

    /// <summary>Before those of VPNs in containers (from about 98) and of Cilium (100), which could lead answers away.</summary>
    const uint EarlyPriority = 70;

    /// <summary>Right behind the rule for the table "default".</summary>
    const uint LatePriority = 32768;

    /// <summary>The metric of the routes: this number, plus a bit for each setting that was on already.</summary>
    const uint FirstMetric = 0x7000;

    /// <summary>Before connection tracking and everything else that looks at packets.</summary>
    const int HookPriority = -300;

    const string TablePrefix = "pesto-";

    static readonly string[] Settings = ["net/ipv4/tcp_fwmark_accept", "net/ipv4/fwmark_reflect", "net/ipv6/fwmark_reflect"];

    readonly uint _mark;
    readonly int[] _settings = [-1, -1, -1];
    readonly bool[] _keeps = new bool[4];
    NamespaceLease? _lease;
    PolicyRouting? _routing;
    NetlinkSocket? _filter;
    NetlinkMessages? _filterRemoval;

    ClientAddressRouting(uint mark) => _mark = mark;

    /// <summary>What is missing, for the first protocol and family that lacks something, with the reason; null if nothing is.</summary>
    public LinuxException? Missing { get; private set; }

    /// <summary>The container has IPv6, at least on its loopback.</summary>
    public bool HasV6 { get; } = FindV6();

    /// <summary>Whether clients of this protocol and family can keep their address.</summary>
    public bool Keeps(IpProtocol protocol, bool isV4) => _keeps[Place(protocol, isV4)];

    static int Place(IpProtocol protocol, bool isV4) => (protocol == IpProtocol.Tcp ? 0 : 2) + (isV4 ? 0 : 1);

    /// <summary>The mark by which a datagram removes its flow from the set, and gets no farther.</summary>
    public static uint ForgetMark(uint mark) => mark + 1;

    /// <summary>
    /// What the thread that makes transparent sockets has to keep: CAP_NET_RAW, on older kernels CAP_NET_ADMIN, and CAP_NET_BIND_SERVICE for clients whose
    /// port is below 1024.
    /// </summary>
    public Capability Needs { get; private set; }

    /// <summary>Makes all of it, or as much as is possible: see <see cref="Keeps"/>.</summary>
    /// <param name="mark">Also the number of the table of routes.</param>
    /// <param name="udpFlows">The most UDP flows at a time.</param>
    /// <param name="udpTimeout">Milliseconds that a UDP flow may be idle.</param>
    public static ClientAddressRouting SetUp(uint mark, int udpFlows, long udpTimeout)
    {
        ClientAddressRouting made = new(mark);
        Result leased = NamespaceLease.Take(out made._lease);
        if (!leased.Ok)
            made.Lacks("locking the network namespace", leased);
        Result opened = PolicyRouting.Open(RouteProtocol, out made._routing);
        if (!opened.Ok)
        {
            made.Lacks("opening a netlink socket", opened);
            return made;
        }

        for (int i = 0; i < Settings.Length; i++)
            made._settings[i] = Files.Open($"/proc/sys/{Settings[i]}", Files.ReadWrite) is { Ok: true, Value: int fd } ? fd : -1;
        Result filter = NetlinkSocket.Open(NetlinkSocket.Netfilter, out made._filter);
        if (made._lease is { IsFirst: true })
            made.RemoveLeftovers();

        uint metric = made.Metric();
        bool v4 = made.Route(SocketAddress.V4, metric), v6 = made.Route(SocketAddress.V6, metric);
        // The route tells how the settings were: without it they stay so.
        bool tcp = v4 && made.TurnOn();
        made._keeps[Place(IpProtocol.Tcp, isV4: true)] = v4 && tcp;
        made._keeps[Place(IpProtocol.Tcp, isV4: false)] = v6 && tcp;
        bool udp = made.HasSocket("opening a socket of nf_tables", filter) && made.Filter(udpFlows, udpTimeout);
        made._keeps[Place(IpProtocol.Udp, isV4: true)] = udp && v4 && made.RouteUdp(SocketAddress.V4);
        made._keeps[Place(IpProtocol.Udp, isV4: false)] = udp && v6 && made.RouteUdp(SocketAddress.V6);
        made._lease?.Share();
        made.Needs = Capability.NetBindService | Capability.NetRaw | (CanMarkWith(Capability.NetRaw, mark) ? Capability.None : Capability.NetAdmin);
        return made;
    }

    /// <summary>Tried by a thread that comes to nothing else.</summary>
    static bool CanMarkWith(Capability capability, uint mark)
    {
        bool can = false;
        Thread thread = new(() =>
        {
            Privileges.Keep(capability);
            Result socket = Sockets.Tcp(SocketAddress.V4);
            can = socket.Ok && Sockets.SetMark(socket.Value, mark).Ok;
            if (socket.Ok)
                Descriptors.Close(socket.Value);
        });
        thread.Start();
        thread.Join();
        return can;
    }

    bool HasSocket(string operation, Result opened)
    {
        if (!opened.Ok)
            Lacks(operation, opened);
        return opened.Ok;
    }

    bool Lacks(string operation, Result failed)
    {
        Missing ??= new(operation, failed.Error);
        return false;
    }

    /// <summary>What the route is to tell about the settings: what an earlier one tells, or how they are.</summary>
    uint Metric()
    {
        Result told = _routing!.MetricOfOurs(SocketAddress.V4);
        if (told.Ok)
            return (uint)told.Value;
        uint metric = FirstMetric;
        Span<byte> value = stackalloc byte[8];
        for (int i = 0; i < Settings.Length; i++)
        {
            bool isOn = _settings[i] >= 0 && Descriptors.ReadAt(_settings[i], value, 0) is { Ok: true, Value: > 0 } && value[0] != (byte)'0';
            metric |= isOn ? 1u << i : 0;
        }

        return metric;
    }

    bool Route(ushort family, uint metric)
    {
        Result done = _routing!.AddLocalDefault(family, _mark, metric);
        if (!done.Ok)
            return (family == SocketAddress.V4 || HasV6) && Lacks(done.Is(Errno.ENETDOWN) ? "using the container's loopback interface" : $"adding an {Name(family)} route", done);
        done = _routing.Add(family, new(EarlyPriority, _mark) { Mark = _mark });
        return done.Ok || Lacks($"adding an {Name(family)} rule of routing", done);
    }

    static string Name(ushort family) => family == SocketAddress.V4 ? "IPv4" : "IPv6";

    static bool FindV6()
    {
        Span<byte> isOff = stackalloc byte[4];
        return Files.Read("/proc/sys/net/ipv6/conf/lo/disable_ipv6", isOff, out int length).Ok && length > 0 && isOff[0] == (byte)'0';
    }

    /// <summary>False if accepted sockets do not get the mark. Without the other settings, refused clients learn it by a time-out in some containers.</summary>
    bool TurnOn()
    {
        for (int i = Settings.Length - 1; i >= 0; i--)
        {
            Result written = _settings[i] < 0 ? Files.Open($"/proc/sys/{Settings[i]}", Files.ReadWrite) : Descriptors.WriteAt(_settings[i], "1\n"u8, 0);
            if (!written.Ok && i == 0)
                return Lacks($"writing /proc/sys/{Settings[i]}", written);
        }

        return true;
    }

    bool RouteUdp(ushort family)
    {
        // Programs find out which of their peer's addresses they can reach, and from where, by connecting a UDP socket, which has a port that the
        // kernel chooses. Those ports are left out, so that they go on finding out; servers have others. Ranges that end with 65535 are invalid.
        PortRange ephemeral = EphemeralPorts();
        Result done = default;
        foreach ((int first, int last) in (ReadOnlySpan<(int, int)>)[(1, ephemeral.First - 1), (ephemeral.Last + 1, ushort.MaxValue - 1)])
        {
            if (first > last)
                continue;
            PolicyRouting.Rule rule = new(EarlyPriority, _mark) { OnlyUdp = true, SourcePorts = ((ushort)first, (ushort)last) };
            if (done.Ok)
                done = _routing!.Add(family, rule with { FromLoopback = true });
            if (done.Ok)
                done = _routing!.Add(family, rule with { Priority = LatePriority });
        }

        return done.Ok || Lacks($"adding an {Name(family)} rule of routing for UDP", done);
    }

    static PortRange EphemeralPorts()
    {
        Span<byte> text = stackalloc byte[64];
        return Files.Read("/proc/sys/net/ipv4/ip_local_port_range", text, out int length).Ok
            && PortRange.TryParseSysctl(System.Text.Encoding.ASCII.GetString(text[..length]), out PortRange range)
                ? range
                : PortRange.UsualEphemeral;
    }

    /// <summary>Makes the table of nf_tables: owned by the socket and with removal of single entries, or without where the kernel is older.</summary>
    bool Filter(int flows, long timeout)
    {
        string name = $"{TablePrefix}{Random.Shared.Next():x8}";
        Result done = MakeTable(name, flows, timeout, owned: true, forgets: true);
        if (done.Ok)
            return true;
        done = MakeTable(name, flows, timeout, owned: false, forgets: true);
        if (!done.Ok)
            done = MakeTable(name, flows, timeout, owned: false, forgets: false);
        if (!done.Ok)
            return Lacks("making a table of nf_tables", done);
        _filterRemoval = NfTables.Removal(name);
        return true;
    }

    Result MakeTable(string name, int flows, long timeout, bool owned, bool forgets)
    {
        const int LeastEntries = 65536;
        const long Day = 86_400_000;
        // Numbers that nft(8) has for the types of a key's parts.
        const uint V4Address = 7, V6Address = 8, Port = 13;
        // An entry that its flow has left is still counted until the kernel has swept it up.
        uint size = (uint)Math.Max(LeastEntries, 2 * flows);
        long lifetime = timeout == 0 ? Day : timeout;
        NfTables batch = new();
        batch.BeginTable(name, owned);
        batch.AddSet("v4", [V4Address, Port, Port], [4, 2, 2], size, lifetime);
        batch.AddSet("v6", [V6Address, Port, Port], [16, 2, 2], size, lifetime);
        batch.BeginChain("in", NfTables.Hook.Input, reroutes: false, HookPriority);
        foreach (bool isV4 in (ReadOnlySpan<bool>)[true, false])
        {
            string set = isV4 ? "v4" : "v6";
            batch.AddRule(rule => KeyOfSender(Marked(rule, _mark), isV4).Change(NfTables.SetChange.Update, set, 0));
            if (forgets)
                batch.AddRule(rule => KeyOfSender(Marked(rule, ForgetMark(_mark)), isV4).Change(NfTables.SetChange.Delete, set, 0));
        }

        batch.AddRule(rule => Marked(rule, ForgetMark(_mark)).Drop());
        batch.BeginChain("out", NfTables.Hook.Output, reroutes: true, HookPriority);
        foreach (bool isV4 in (ReadOnlySpan<bool>)[true, false])
        {
            string set = isV4 ? "v4" : "v6";
            batch.AddRule(rule => KeyOfReceiver(Udp(rule), isV4).IfIn(set, 0).Change(NfTables.SetChange.Update, set, 0).Set(0, _mark).Store(NfTables.Meta.Mark, 0));
        }

        return batch.Commit(_filter!);
    }

    /// <summary>Datagrams of ours: what this namespace sends to itself comes by way of lo, whatever the address.</summary>
    static NfTables.Expressions Marked(NfTables.Expressions rule, uint mark)
    {
        const uint Loopback = 1;
        rule.Load(NfTables.Meta.Mark, 0).IfEqual(0, mark).Load(NfTables.Meta.InputInterface, 0).IfEqual(0, Loopback);
        return Udp(rule);
    }

    static NfTables.Expressions Udp(NfTables.Expressions rule) => rule.Load(NfTables.Meta.TransportProtocol, 0).IfEqual(0, [(byte)IpProtocol.Udp]);

    static NfTables.Expressions KeyOfSender(NfTables.Expressions rule, bool isV4) => Key(rule, isV4, V4Source, V6Source, SourcePort, DestinationPort);

    static NfTables.Expressions KeyOfReceiver(NfTables.Expressions rule, bool isV4) => Key(rule, isV4, V4Destination, V6Destination, DestinationPort, SourcePort);

    // Offsets in the headers of IPv4, IPv6 and UDP.
    const uint V4Source = 12, V4Destination = 16, V6Source = 8, V6Destination = 24, SourcePort = 0, DestinationPort = 2;

    /// <summary>The client's address and port, and the service's port, in registers from the first on.</summary>
    static NfTables.Expressions Key(NfTables.Expressions rule, bool isV4, uint v4, uint v6, uint clientPort, uint servicePort)
    {
        rule.Load(NfTables.Meta.Family, 0).IfEqual(0, [(byte)(isV4 ? SocketAddress.V4 : SocketAddress.V6)]);
        uint length = isV4 ? 4u : Address.Size;
        rule.Load(NfTables.Header.Network, isV4 ? v4 : v6, length, 0);
        rule.Load(NfTables.Header.Transport, clientPort, 2, length / 4);
        return rule.Load(NfTables.Header.Transport, servicePort, 2, (length / 4) + 1);
    }

    /// <summary>Removes what a forwarder left that was killed together with the child that would have done it.</summary>
    void RemoveLeftovers()
    {
        RemoveShared();
        if (_filter is null)
            return;
        foreach (string table in NfTables.Names())
        {
            if (table.StartsWith(TablePrefix, StringComparison.Ordinal))
                _ = _filter.Do(NfTables.Removal(table)).Ok;
        }
    }

    /// <summary>Removes all of it, what is shared only if no other forwarder is left. Allocates nothing; takes CAP_NET_ADMIN.</summary>
    public void Remove()
    {
        if (_filterRemoval is not null)
            _ = _filter!.Do(_filterRemoval).Ok;
        if (_routing is null || _lease is null || !_lease.End())
            return;
        RemoveShared();
        _lease.Share();
    }

    void RemoveShared()
    {
        Result told = _routing!.MetricOfOurs(SocketAddress.V4);
        for (int i = 0; told.Ok && i < _settings.Length; i++)
        {
            if (_settings[i] >= 0 && (told.Value & (1 << i)) == 0)
                _ = Descriptors.WriteAt(_settings[i], "0\n"u8, 0).Ok;
        }

        _routing.RemoveOurs();
    }

    /// <summary>What <see cref="Remove"/> works with, -1 for what is not there.</summary>
    public int[] RemovalDescriptors =>
    [
        _lease?.Fd ?? -1,
        _routing?.Descriptors.Item1 ?? -1,
        _routing?.Descriptors.Item2 ?? -1,
        _filterRemoval is null ? -1 : _filter!.Fd,
        .. _settings,
    ];

    /// <summary>Another process does <see cref="Remove"/>: this one keeps only what has to stay open for as long as it lives.</summary>
    public void LeaveRemoval()
    {
        _routing?.Close();
        _routing = null;
        _filterRemoval = null;
        foreach (ref int setting in _settings.AsSpan())
        {
            if (setting >= 0)
                Descriptors.Close(setting);
            setting = -1;
        }
    }
}
