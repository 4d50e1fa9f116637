using System.Buffers.Binary;

namespace Pesto.Linux;

/// <summary>The addresses of a network namespace, that of the thread which opens this, as they are at any moment (rtnetlink(7)). Allocates nothing.</summary>
public sealed unsafe class InterfaceAddresses
{
    const ushort GetAddress = 22;

    // struct ifaddrmsg: family, length of the prefix, flags, scope, then the interface.
    const int FixedSize = 8, FlagsAt = 2, ScopeAt = 3;

    const ushort AddressAttribute = 1, LocalAttribute = 2, FlagsAttribute = 8;
    const uint Unusable = 0x40 | 0x08, Temporary = 0x01, Deprecated = 0x20;
    const byte LinkScope = 253;

    /// <summary>Addresses beyond that are not known.</summary>
    const int Most = 256;

    const int EventSize = 8192;

    readonly NetlinkDump _list;
    readonly int _events;
    readonly NativeArray<Address> _all = new(Most);
    readonly NativeArray<byte> _event = new(EventSize);
    int _count;
    Address _v4;
    Address _v6;
    bool _isKnown;

    InterfaceAddresses(int list, int events)
    {
        _list = new(list);
        _events = events;
    }

    public static Result Open(out InterfaceAddresses? addresses)
    {
        addresses = null;
        Result list = NetlinkDump.Open(NetlinkSocket.Route);
        if (!list.Ok)
            return list;
        Result events = OpenEvents();
        if (events.Ok)
            addresses = new(list.Value, events.Value);
        else
            Descriptors.Close(list.Value);
        return events;
    }

    /// <summary>A socket that gets a message whenever an address comes or goes.</summary>
    static Result OpenEvents()
    {
        const uint OfV4 = 0x10, OfV6 = 0x100;
        Result socket = NetlinkDump.Open(NetlinkSocket.Route);
        if (!socket.Ok)
            return socket;
        // struct sockaddr_nl: family, padding, port (0: the kernel's choice), groups.
        uint* address = stackalloc uint[3] { NetlinkSocket.Family, 0, OfV4 | OfV6 };
        Result bound = Result.Of(Libc.bind(socket.Value, address, 3 * sizeof(uint)));
        if (bound.Ok)
            return socket;
        Descriptors.Close(socket.Value);
        return bound;
    }

    /// <summary>Whether this is an address of the namespace, on whatever interface.</summary>
    public bool Contains(Address address)
    {
        if (address.IsLoopback)
            return true;
        Refresh();
        return _all.Span[.._count].Contains(address);
    }

    /// <summary>An address of a family that others know the namespace by: not loopback, not of a single link; "::" if there is none.</summary>
    public Address Own(bool isV4)
    {
        Refresh();
        return isV4 ? _v4 : _v6;
    }

    void Refresh()
    {
        if (_isKnown && !HasChanged())
            return;
        _count = 0;
        _v4 = _v6 = default;
        ReadOnlySpan<byte> anyFamily = [0, 0, 0, 0, 0, 0, 0, 0];
        Result next = _list.Begin(GetAddress, anyFamily);
        while (next.Ok || next.Is(Errno.EAGAIN))
        {
            next = _list.Next(out byte* entry, out int size);
            if (next is { Ok: true, Value: 0 })
                break;
            if (next.Ok)
                Take(entry, size);
        }

        // What broke off is asked for again the next time.
        _isKnown = next.Ok;
    }

    bool HasChanged()
    {
        bool changed = false;
        while (true)
        {
            Result got = Sockets.Receive(_events, _event.Pointer, EventSize);
            if (got.Is(Errno.EAGAIN))
                return changed;
            // ENOBUFS: there were more than the socket holds.
            changed = true;
            if (!got.Ok && !got.Is(Errno.ENOBUFS) && !got.Is(Errno.EINTR))
                return changed;
        }
    }

    void Take(byte* entry, int size)
    {
        if (size < FixedSize)
            return;
        bool isV4 = entry[0] == SocketAddress.V4;
        int length = isV4 ? 4 : Address.Size;
        // Where an interface leads to one other host, the other attribute is that host's.
        byte* value = NetlinkAttribute.Find(entry, size, FixedSize, LocalAttribute, length);
        if (value == null)
            value = NetlinkAttribute.Find(entry, size, FixedSize, AddressAttribute, length);
        if (value == null)
            return;
        Address address = isV4 ? Address.FromV4(BinaryPrimitives.ReadUInt32BigEndian(new(value, 4))) : Address.Read(new(value, Address.Size));
        if (_count < Most)
            _all[_count++] = address;

        byte* wide = NetlinkAttribute.Find(entry, size, FixedSize, FlagsAttribute, sizeof(uint));
        uint flags = wide == null ? entry[FlagsAt] : *(uint*)wide;
        if (entry[ScopeAt] >= LinkScope || address.IsLoopback || address.IsLinkLocal || (!isV4 && (flags & Unusable) != 0))
            return;
        ref Address own = ref isV4 ? ref _v4 : ref _v6;
        if (own.IsAny || (!isV4 && (flags & (Temporary | Deprecated)) == 0))
            own = address;
    }
}
