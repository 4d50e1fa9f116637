using System.Buffers.Binary;

namespace Pesto.Linux;

/// <summary>
/// Received datagrams of any size, many of them by one call. An entry is one datagram, or segments: datagrams of one flow
/// and size, of which only the last may be shorter, that the kernel hands over as one (UDP_GRO).
/// </summary>
public sealed unsafe class ReceiveBatch
{
    const int Longest = 64 * 1024;

    // Buffers that lie a power of two apart would fall on each other in the processor's caches.
    const int Stride = Longest + (33 * 64);
    const int ControlSize = 128;
    const int DontWait = 0x40;

    readonly NativeArray<byte> _bytes;
    readonly NativeArray<byte> _controls;
    readonly NativeArray<SocketAddress> _sources;
    readonly NativeArray<MessageHeader> _headers;
    readonly NativeArray<IoVector> _buffers;
    readonly NativeArray<IoVector> _received;
    readonly NativeArray<Control> _control;

    /// <param name="capacity">The most entries.</param>
    /// <param name="withSources">Whether the source of each is wanted.</param>
    public ReceiveBatch(int capacity, bool withSources)
    {
        _bytes = new(capacity * Stride);
        _controls = new(capacity * ControlSize);
        _sources = new(capacity);
        _headers = new(capacity);
        _buffers = new(capacity);
        _received = new(capacity);
        _control = new(capacity);
        for (int i = 0; i < capacity; i++)
        {
            _buffers[i] = new() { Base = _bytes.Pointer + (i * Stride), Length = Longest };
            _received[i].Base = _buffers[i].Base;
            _headers[i].Message = new()
            {
                Name = withSources ? _sources.Pointer + i : null,
                NameLength = withSources ? (uint)sizeof(SocketAddress) : 0,
                Vectors = _buffers.Pointer + i,
                VectorCount = 1,
                Control = _controls.Pointer + (i * ControlSize),
                ControlLength = ControlSize,
            };
        }
    }

    /// <summary>What the control messages of an entry said.</summary>
    struct Control
    {
        public Address Local;
        public uint Interface;
        public int SegmentSize;
    }

    public byte* Bytes(int entry) => _received[entry].Base;

    /// <summary>In bytes; of segments, of all together.</summary>
    public int Length(int entry) => (int)_received[entry].Length;

    /// <summary>In bytes, the last may be shorter; 0 if the entry is a single datagram.</summary>
    public int SegmentSize(int entry) => _control[entry].SegmentSize;

    /// <summary>How many datagrams the entry is.</summary>
    public int Datagrams(int entry) => SegmentSize(entry) == 0 ? 1 : (Length(entry) + SegmentSize(entry) - 1) / SegmentSize(entry);

    public ref SocketAddress Source(int entry) => ref _sources[entry];

    /// <summary>The address of this host that a reply is to come from; "::" if the socket does not tell, or if there is none (multicast).</summary>
    public Address Local(int entry) => _control[entry].Local;

    /// <summary>The index of the interface that it came by; 0 if the socket does not tell.</summary>
    public uint Interface(int entry) => _control[entry].Interface;

    internal IoVector* Vector(int entry) => _received.Pointer + entry;

    /// <summary>
    /// Receives what is there, without waiting, into so many entries from the first on. Fewer than asked for is all that there
    /// was; EAGAIN if that was nothing. An error that an earlier datagram met (ECONNREFUSED) comes first, and once.
    /// </summary>
    public Result Receive(int fd, int first, int count)
    {
        Result received = Result.Of(Libc.recvmmsg(fd, _headers.Pointer + first, (uint)count, DontWait, null));
        int end = received.Ok ? first + received.Value : first;
        for (int i = first; i < end; i++)
        {
            MessageHeader* header = _headers.Pointer + i;
            _received[i].Length = header->Length;
            _control[i] = default;
            if (header->Message.ControlLength != 0)
                ReadControl(i, (int)header->Message.ControlLength);
            header->Message.ControlLength = ControlSize;
            header->Message.NameLength = header->Message.Name == null ? 0 : (uint)sizeof(SocketAddress);
        }

        return received;
    }

    void ReadControl(int entry, int length)
    {
        byte* at = _controls.Pointer + (entry * ControlSize);
        byte* end = at + length;
        ref Control into = ref _control[entry];
        while (end - at >= sizeof(ControlHeader))
        {
            ControlHeader* header = (ControlHeader*)at;
            byte* data = at + sizeof(ControlHeader);
            switch ((header->Level, header->Type))
            {
                case (ControlHeader.Udp, ControlHeader.Gro):
                    into.SegmentSize = *(int*)data;
                    break;
                case (ControlHeader.Ip, ControlHeader.IpPacketInfo):
                    // struct in_pktinfo: interface, address to reply from, address in the header. On a dual-stack socket
                    // it follows the IPv6 form of the same, which has the address in the header only.
                    into.Interface = *(uint*)data;
                    into.Local = Address.FromV4(BinaryPrimitives.ReadUInt32BigEndian(new(data + 4, 4)));
                    break;
                case (ControlHeader.Ipv6, ControlHeader.Ipv6PacketInfo):
                    // struct in6_pktinfo: address in the header, interface.
                    into.Interface = *(uint*)(data + Address.Size);
                    Address local = Address.Read(new(data, Address.Size));
                    into.Local = local.IsMulticast ? Address.Any : local;
                    break;
                default:
                    break;
            }

            at += ControlHeader.Space(header->Length);
        }

        // One segment is a datagram like any other.
        if (into.SegmentSize >= Length(entry))
            into.SegmentSize = 0;
    }
}
