using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Pesto.Linux;

/// <summary>
/// Places for datagrams of any size, filled many at a time. A place holds one datagram, or a row of datagrams of one size
/// that the kernel has put together (UDP_GRO), of which only the last may be shorter.
/// </summary>
public sealed unsafe class Datagrams
{
    const int Longest = 64 * 1024;

    // Places that lie a power of two apart would fall on each other in the processor's caches.
    const int Stride = Longest + (33 * 64);
    const int ControlSize = 128;

    readonly NativeArray<byte> _bytes;
    readonly NativeArray<byte> _controls;
    readonly NativeArray<SocketAddress> _sources;
    readonly NativeArray<MessageHeader> _headers;
    readonly NativeArray<IoVector> _vectors;
    readonly NativeArray<IoVector> _filled;
    readonly NativeArray<Place> _places;

    /// <param name="count">How many places there are.</param>
    /// <param name="withSources">Whether to ask where each datagram is from.</param>
    public Datagrams(int count, bool withSources)
    {
        _bytes = new(count * Stride);
        _controls = new(count * ControlSize);
        _sources = new(count);
        _headers = new(count);
        _vectors = new(count);
        _filled = new(count);
        _places = new(count);
        for (int i = 0; i < count; i++)
        {
            _vectors[i] = new() { Base = _bytes.Pointer + (i * Stride), Length = Longest };
            _filled[i].Base = _vectors[i].Base;
            _headers[i].Message = new()
            {
                Name = withSources ? _sources.Pointer + i : null,
                NameLength = withSources ? (uint)sizeof(SocketAddress) : 0,
                Vectors = _vectors.Pointer + i,
                VectorCount = 1,
                Control = _controls.Pointer + (i * ControlSize),
                ControlLength = ControlSize,
            };
        }
    }

    struct Place
    {
        public Address Local;
        public int Segment;
    }

    public int Count => _places.Length;

    public byte* Bytes(int place) => _filled[place].Base;

    /// <summary>In bytes; of a row of datagrams, of all together.</summary>
    public int Length(int place) => (int)_filled[place].Length;

    /// <summary>The size of each datagram of a row, in bytes; 0 if the place holds a single one.</summary>
    public int Segment(int place) => _places[place].Segment;

    /// <summary>How many datagrams the place holds.</summary>
    public int Held(int place) => Segment(place) == 0 ? 1 : (Length(place) + Segment(place) - 1) / Segment(place);

    public ref SocketAddress Source(int place) => ref _sources[place];

    /// <summary>The address of this host that an answer is to come from; "::" if the socket does not tell, or if there is none (multicast).</summary>
    public Address Local(int place) => _places[place].Local;

    internal IoVector* Filled(int place) => _filled.Pointer + place;

    /// <summary>
    /// Receives what is there, without waiting, into so many places from the first on. Fewer than asked for is all that there
    /// was; EAGAIN if that was nothing. An error that an earlier datagram met (ECONNREFUSED) comes first, and once.
    /// </summary>
    public Result Receive(int fd, int first, int count)
    {
        const int DontWait = 0x40;
        Result received = Result.Of(Libc.recvmmsg(fd, _headers.Pointer + first, (uint)count, DontWait, null));
        int end = received.Ok ? first + received.Value : first;
        for (int i = first; i < end; i++)
        {
            MessageHeader* header = _headers.Pointer + i;
            _filled[i].Length = header->Length;
            _places[i] = default;
            if (header->Message.ControlLength != 0)
                ReadControl(i, (int)header->Message.ControlLength);
            header->Message.ControlLength = ControlSize;
            header->Message.NameLength = header->Message.Name == null ? 0 : (uint)sizeof(SocketAddress);
        }

        return received;
    }

    void ReadControl(int place, int length)
    {
        byte* at = _controls.Pointer + (place * ControlSize);
        byte* end = at + length;
        ref Place into = ref _places[place];
        while (end - at >= sizeof(ControlHeader))
        {
            ControlHeader* header = (ControlHeader*)at;
            byte* data = at + sizeof(ControlHeader);
            switch ((header->Level, header->Type))
            {
                case (ControlHeader.Udp, ControlHeader.Gro):
                    into.Segment = *(int*)data;
                    break;
                case (ControlHeader.Ip, ControlHeader.IpPacketInfo):
                    // struct in_pktinfo: interface, address to answer from, address in the header. On a dual-stack socket
                    // it follows the IPv6 form of the same, which has the address in the header only.
                    into.Local = Address.FromV4(System.Buffers.Binary.BinaryPrimitives.ReadUInt32BigEndian(new(data + 4, 4)));
                    break;
                case (ControlHeader.Ipv6, ControlHeader.Ipv6PacketInfo):
                    Address local = Address.Read(new(data, Address.Size));
                    into.Local = local.IsMulticast ? Address.Any : local;
                    break;
                default:
                    break;
            }

            at += ControlHeader.Space(header->Length);
        }

        // A row of one is a datagram like any other.
        if (into.Segment >= Length(place))
            into.Segment = 0;
    }
}

/// <summary>struct iovec.</summary>
[StructLayout(LayoutKind.Sequential)]
unsafe struct IoVector
{
    public byte* Base;
    public nuint Length;
}

/// <summary>struct mmsghdr.</summary>
[StructLayout(LayoutKind.Sequential)]
unsafe struct MessageHeader
{
    public Inner Message;

    /// <summary>Bytes received or sent.</summary>
    public uint Length;

    /// <summary>struct msghdr.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct Inner
    {
        public SocketAddress* Name;
        public uint NameLength;
        public IoVector* Vectors;
        public nuint VectorCount;
        public byte* Control;
        public nuint ControlLength;
        public int Flags;
    }
}

/// <summary>struct cmsghdr: what precedes each control message; its data follows at once.</summary>
[StructLayout(LayoutKind.Sequential)]
unsafe struct ControlHeader
{
    public const int Ip = 0, Udp = 17, Ipv6 = 41;
    public const int IpPacketInfo = 8, Ipv6PacketInfo = 50, SegmentSize = 103, Gro = 104;

    /// <summary>Of header and data, in bytes.</summary>
    public nuint Length;
    public int Level;
    public int Type;

    /// <summary>The bytes from one control message to the next.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static int Space(nuint length) => (int)((length + (nuint)sizeof(nuint) - 1) & ~((nuint)sizeof(nuint) - 1));
}
