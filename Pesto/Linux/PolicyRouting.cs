using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Pesto.Linux;

/// <summary>Rules that choose a table of routes, and the routes in it (rtnetlink(7), linux/fib_rules.h), in one network namespace.</summary>
public sealed unsafe class PolicyRouting
{
    const ushort NewRoute = 24, DeleteRoute = 25, GetRoute = 26, NewRule = 32, DeleteRule = 33, GetRule = 34;

    // struct rtmsg and struct fib_rule_hdr have their first five bytes in common: family, lengths of destination and source, TOS, table.
    const int FixedSize = 12, DestinationLengthAt = 1, SourceLengthAt = 2, TableAt = 4, RouteProtocolAt = 5, ScopeAt = 6, TypeAt = 7;

    const ushort RouteInterface = 4, RouteMetric = 6, RouteTable = 15;
    const ushort RuleSource = 2, RulePriority = 6, RuleMark = 10, RuleTable = 15, RuleMask = 16, RuleProtocol = 21, RuleIpProtocol = 22, RuleSourcePorts = 23;

    /// <summary>How struct rtmsg and struct fib_rule_hdr say that the table's number is an attribute.</summary>
    const byte TableIsAttribute = 0;

    const byte LocalType = 2, ToTable = 1, HostScope = 254;
    const byte Udp = 17;
    const uint LoopbackInterface = 1;
    const int HeadSize = 16;

    /// <summary>Longer than any rule or route that is removed here.</summary>
    const int LongestMessage = 1024;

    readonly NetlinkSocket _changes;
    readonly NetlinkDump _list;
    readonly int _listFd;
    readonly byte _protocol;
    readonly NetlinkMessages _messages = new();
    readonly NativeArray<byte> _removal = new(HeadSize + LongestMessage);

    PolicyRouting(NetlinkSocket changes, int listFd, byte protocol)
    {
        _changes = changes;
        _listFd = listFd;
        _list = new(listFd);
        _protocol = protocol;
    }

    /// <param name="protocol">What the rules and routes made here are known by: a number of RTPROT_*, shown by <c>ip rule</c> and <c>ip route</c> as "proto".</param>
    public static Result Open(byte protocol, out PolicyRouting? routing)
    {
        routing = null;
        Result opened = NetlinkSocket.Open(NetlinkSocket.Route, out NetlinkSocket? changes);
        if (!opened.Ok)
            return opened;
        Result list = NetlinkDump.Open(NetlinkSocket.Route);
        if (!list.Ok)
        {
            changes!.Close();
            return list;
        }

        routing = new(changes!, list.Value, protocol);
        return default;
    }

    /// <summary>The descriptors that this works with.</summary>
    public (int, int) Descriptors => (_changes.Fd, _listFd);

    public void Close()
    {
        _changes.Close();
        Linux.Descriptors.Close(_listFd);
    }

    /// <summary>A rule to be made. A rule of the same kind that exists already is as good.</summary>
    /// <param name="Priority">Rules are asked in the order of their priorities, the lowest first.</param>
    public readonly record struct Rule(uint Priority, uint Table)
    {
        /// <summary>Only for packets with this mark; 0 for any.</summary>
        public uint Mark { get; init; }

        /// <summary>Only for packets from loopback: 127.0.0.0/8 or ::1.</summary>
        public bool FromLoopback { get; init; }

        /// <summary>Only for UDP. Routes that are looked up anew after a hook has marked a packet count as no protocol.</summary>
        public bool OnlyUdp { get; init; }

        /// <summary>Only for packets from these ports, both inclusive; 0 for any.</summary>
        public (ushort First, ushort Last) SourcePorts { get; init; }
    }

    /// <summary>Has a table take every address for one of this host's: <c>ip route add local default dev lo table TABLE</c>.</summary>
    /// <param name="metric">Of the route; nothing goes by it, as there is no other in the table.</param>
    /// <returns>ENETDOWN: the loopback interface is down. EACCES: it has IPv6 turned off. EEXIST is none here.</returns>
    public Result AddLocalDefault(ushort family, uint table, uint metric)
    {
        Span<byte> route = stackalloc byte[FixedSize];
        route.Clear();
        route[0] = (byte)family;
        route[TableAt] = TableIsAttribute;
        route[RouteProtocolAt] = _protocol;
        route[ScopeAt] = HostScope;
        route[TypeAt] = LocalType;
        _messages.Clear();
        _messages.Begin(NewRoute, NetlinkMessages.Acknowledge | NetlinkMessages.Create | NetlinkMessages.Exclusive, route);
        _messages.AddNumber(RouteTable, table);
        _messages.AddNumber(RouteInterface, LoopbackInterface);
        _messages.AddNumber(RouteMetric, metric);
        return _changes.Do(_messages, Errno.EEXIST);
    }

    /// <summary>EEXIST is none here. EINVAL: a kernel before 4.17 does not know protocols and ports in rules; EOPNOTSUPP: it knows no rules.</summary>
    public Result Add(ushort family, in Rule rule)
    {
        Span<byte> head = stackalloc byte[FixedSize];
        head.Clear();
        head[0] = (byte)family;
        head[TableAt] = TableIsAttribute;
        head[TypeAt] = ToTable;
        if (rule.FromLoopback)
            head[SourceLengthAt] = family == SocketAddress.V4 ? (byte)8 : (byte)128;
        _messages.Clear();
        _messages.Begin(NewRule, NetlinkMessages.Acknowledge | NetlinkMessages.Create | NetlinkMessages.Exclusive, head);
        _messages.AddNumber(RulePriority, rule.Priority);
        _messages.AddNumber(RuleTable, rule.Table);
        _messages.AddByte(RuleProtocol, _protocol);
        if (rule.FromLoopback)
            _messages.Add(RuleSource, family == SocketAddress.V4 ? [127, 0, 0, 0] : [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        if (rule.Mark != 0)
        {
            _messages.AddNumber(RuleMark, rule.Mark);
            _messages.AddNumber(RuleMask, uint.MaxValue);
        }

        if (rule.OnlyUdp)
            _messages.AddByte(RuleIpProtocol, Udp);
        if (rule.SourcePorts != default)
        {
            // struct fib_rule_port_range: first, last.
            Span<byte> range = stackalloc byte[4];
            MemoryMarshal.Write(range, rule.SourcePorts.First);
            MemoryMarshal.Write(range[2..], rule.SourcePorts.Last);
            _messages.Add(RuleSourcePorts, range);
        }

        return _changes.Do(_messages, Errno.EEXIST);
    }

    /// <summary>The metric of a route of this family that was made under this protocol, by whatever process; ENOENT if there is none.</summary>
    public Result MetricOfOurs(ushort family)
    {
        Result found = Result.From(Errno.ENOENT);
        Result listed = Begin(GetRoute, family);
        while (listed.Ok && (listed = Next(out byte* route, out int size)) is { Ok: true, Value: 1 })
        {
            if (IsOurRoute(route, size))
                found = Result.From(*(int*)NetlinkAttribute.Find(route, size, FixedSize, RouteMetric, sizeof(uint)));
        }

        return found;
    }

    /// <summary>Removes the rules and routes of both families that were made under this protocol, by whatever process. Allocates nothing.</summary>
    public void RemoveOurs()
    {
        foreach (ushort family in (ReadOnlySpan<ushort>)[SocketAddress.V4, SocketAddress.V6])
        {
            Remove(GetRule, DeleteRule, family);
            Remove(GetRoute, DeleteRoute, family);
        }
    }

    void Remove(ushort get, ushort delete, ushort family)
    {
        // What follows a removed entry in the kernel's list may be passed over, so it is listed until none is found.
        const int MostTimes = 64;
        bool removed = true;
        for (int i = 0; removed && i < MostTimes; i++)
        {
            removed = false;
            Result listed = Begin(get, family);
            while (listed.Ok && (listed = Next(out byte* entry, out int size)) is { Ok: true, Value: 1 })
            {
                if (get == GetRule ? IsOurRule(entry, size) : IsOurRoute(entry, size))
                    removed |= Remove(delete, entry, size);
            }
        }
    }

    /// <summary>The kernel takes for removal what it gave in the list.</summary>
    bool Remove(ushort type, byte* entry, int size)
    {
        if (size > LongestMessage)
            return false;
        byte* message = _removal.Pointer;
        Unsafe.InitBlock(message, 0, HeadSize);
        *(int*)message = HeadSize + size;
        *(ushort*)(message + 4) = type;
        *(ushort*)(message + 6) = NetlinkMessages.Request;
        Unsafe.CopyBlock(message + HeadSize, entry, (uint)size);
        return Sockets.Send(_changes.Fd, message, HeadSize + size).Ok;
    }

    Result Begin(ushort type, ushort family)
    {
        Span<byte> body = stackalloc byte[FixedSize];
        body.Clear();
        body[0] = (byte)family;
        return _list.Begin(type, body);
    }

    Result Next(out byte* body, out int size)
    {
        Result next;
        do
            next = _list.Next(out body, out size);
        while (next.Is(Errno.EAGAIN));
        return next;
    }

    bool IsOurRule(byte* rule, int size)
    {
        byte* protocol = NetlinkAttribute.Find(rule, size, FixedSize, RuleProtocol, 1);
        return protocol != null && *protocol == _protocol;
    }

    bool IsOurRoute(byte* route, int size) =>
        size > FixedSize && route[RouteProtocolAt] == _protocol && route[TypeAt] == LocalType && route[DestinationLengthAt] == 0
        && NetlinkAttribute.Find(route, size, FixedSize, RouteMetric, sizeof(uint)) != null;
}
