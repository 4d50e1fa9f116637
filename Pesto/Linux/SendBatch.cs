using System.Buffers.Binary;

namespace Pesto.Linux;

/// <summary>
/// Messages put together from received datagrams, to be sent by one call. A message is one datagram, or segments: datagrams
/// of one size that go through the network stack as one and are cut apart at its end (UDP_SEGMENT).
/// </summary>
public sealed unsafe class SendBatch
{
    /// <summary>The most segments of one message: older kernels take no more.</summary>
    public const int MostSegments = 64;

    /// <summary>The most bytes of all segments of a message: what one IP packet holds, with room for its headers.</summary>
    public const int MostSegmentBytes = 65_000;

    const int ControlSize = 96;
    const int VectorsEach = 2 * MostSegments;
    const int NoSignal = 0x4000, DontWait = 0x40;

    readonly NativeArray<MessageHeader> _headers;
    readonly NativeArray<byte> _controls;
    readonly NativeArray<Message> _messages;

    // Of messages whose datagrams have a header each: header and payload of each in turn.
    readonly NativeArray<IoVector> _vectors;

    public SendBatch(int capacity)
    {
        _headers = new(capacity);
        _controls = new(capacity * ControlSize);
        _messages = new(capacity);
        _vectors = new(capacity * VectorsEach);
    }

    /// <summary>What became of a message.</summary>
    public struct Message
    {
        /// <summary>As the caller gave it.</summary>
        public int Owner;

        /// <summary>How many datagrams it is.</summary>
        public int Datagrams;

        /// <summary>How many bytes it is, without headers.</summary>
        public int Bytes;

        /// <summary>The size of each segment, of which the last may be shorter; 0 for a single datagram.</summary>
        public int SegmentSize;

        /// <summary>How many of its datagrams could not be sent.</summary>
        public int Lost;

        /// <summary>The kernel or the path does not take segments: they went as datagrams, one by one.</summary>
        public bool SegmentsRefused;

        /// <summary>Why the last that was lost could not be sent.</summary>
        public Errno Error;

        /// <summary>Each of its datagrams has a header of its own.</summary>
        internal bool HasHeaders;
    }

    public int Count { get; private set; }

    public bool IsFull => Count == _messages.Length;

    public ref readonly Message this[int message] => ref _messages[message];

    public void Clear() => Count = 0;

    /// <summary>Adds a message: entries of a batch, which stay as they are until it is sent.</summary>
    /// <param name="owner">A number of the caller's, such as the index of the flow.</param>
    /// <param name="segmentSize">The size of each segment, or 0 for a single datagram.</param>
    /// <param name="to">Where to, or null on a connected socket; stays where it is until the message is sent.</param>
    /// <param name="from">The local address to send from; "::" for the kernel's choice.</param>
    public void Add(int owner, ReceiveBatch batch, int first, int count, int segmentSize, SocketAddress* to, Address from)
    {
        ref Message message = ref Add(owner, segmentSize, batch.Vector(first), count, to, from);
        for (int i = first; i < first + count; i++)
        {
            message.Datagrams += batch.Datagrams(i);
            message.Bytes += batch.Length(i);
        }
    }

    /// <summary>Adds a message in which the payload of each datagram follows a header: an entry of a batch, or as much of it as one message holds.</summary>
    /// <param name="at">The first byte of the entry that is not in a message yet.</param>
    /// <param name="canSegment">Whether it may be segments.</param>
    /// <param name="header">Stays where it is until the message is sent.</param>
    /// <returns>The first byte of the entry that is not in a message now.</returns>
    public int AddWithHeader(int owner, ReceiveBatch batch, int entry, int at, bool canSegment, byte* header, int headerLength, SocketAddress* to)
    {
        int length = batch.Length(entry), size = batch.SegmentSize(entry);
        int most = !canSegment || size == 0 ? 1 : Math.Min(MostSegments, MostSegmentBytes / (headerLength + size));
        IoVector* vectors = _vectors.Pointer + (Count * VectorsEach);
        int start = at, datagrams = 0;
        do
        {
            int payload = size == 0 ? length : Math.Min(size, length - at);
            vectors[2 * datagrams] = new() { Base = header, Length = (nuint)headerLength };
            vectors[(2 * datagrams) + 1] = new() { Base = batch.Bytes(entry) + at, Length = (nuint)payload };
            at += payload;
            datagrams++;
        }
        while (datagrams < most && at < length);
        ref Message message = ref Add(owner, datagrams > 1 ? headerLength + size : 0, vectors, 2 * datagrams, to, Address.Any);
        message.Datagrams = datagrams;
        message.Bytes = at - start;
        message.HasHeaders = true;
        return at;
    }

    ref Message Add(int owner, int segmentSize, IoVector* vectors, int vectorCount, SocketAddress* to, Address from)
    {
        int index = Count++;
        byte* control = _controls.Pointer + (index * ControlSize);
        int length = from.IsAny ? 0 : WriteSource(control, from, to->Scope);
        if (segmentSize != 0)
            length += WriteSegmentSize(control + length, segmentSize);
        _headers[index].Message = new()
        {
            Name = to,
            NameLength = to == null ? 0 : to->Length,
            Vectors = vectors,
            VectorCount = (nuint)vectorCount,
            Control = length == 0 ? null : control,
            ControlLength = (nuint)length,
        };
        ref Message message = ref _messages[index];
        message = new() { Owner = owner, SegmentSize = segmentSize };
        return ref message;
    }

    /// <summary>Sends all without waiting. True if all went; else <see cref="this[int]"/> tells what each message lost.</summary>
    public bool Send(int fd)
    {
        bool all = true;
        int done = 0;
        while (done < Count)
        {
            Result sent = Result.Of(Libc.sendmmsg(fd, _headers.Pointer + done, (uint)(Count - done), NoSignal | DontWait));
            if (sent.Ok)
            {
                done += sent.Value;
                continue;
            }

            if (sent.Is(Errno.EINTR))
                continue;
            all = false;
            if (_messages[done].SegmentSize != 0 && sent.Error is Errno.EINVAL or Errno.EMSGSIZE or Errno.EIO)
                SendOneByOne(fd, done);
            else
                Lose(done, sent.Error);
            done++;
            // No room: what follows would find none either.
            while (sent.Is(Errno.EAGAIN) && done < Count)
                Lose(done++, sent.Error);
        }

        return all;
    }

    void Lose(int index, Errno error)
    {
        ref Message message = ref _messages[index];
        message.Lost = message.Datagrams;
        message.Error = error;
    }

    /// <summary>Segments that are larger than the path takes whole, or that the device can't cut apart.</summary>
    void SendOneByOne(int fd, int index)
    {
        ref Message message = ref _messages[index];
        message.SegmentsRefused = true;
        MessageHeader.Inner single = _headers[index].Message;
        single.ControlLength -= (nuint)SegmentSizeSpace;
        if (single.ControlLength == 0)
            single.Control = null;
        IoVector* all = single.Vectors;
        nuint count = single.VectorCount;
        if (message.HasHeaders)
        {
            single.VectorCount = 2;
            for (nuint i = 0; i < count; i += 2)
            {
                single.Vectors = all + i;
                SendOne(fd, &single, ref message);
            }

            return;
        }

        IoVector piece;
        single.Vectors = &piece;
        single.VectorCount = 1;
        for (nuint i = 0; i < count; i++)
        {
            for (nuint at = 0; at < all[i].Length; at += (nuint)message.SegmentSize)
            {
                piece = new() { Base = all[i].Base + at, Length = Math.Min((nuint)message.SegmentSize, all[i].Length - at) };
                SendOne(fd, &single, ref message);
            }
        }
    }

    static void SendOne(int fd, MessageHeader.Inner* single, ref Message message)
    {
        Result sent = Result.Of(Libc.sendmsg(fd, single, NoSignal | DontWait));
        if (sent.Ok)
            return;
        message.Lost++;
        message.Error = sent.Error;
    }

    static int WriteSource(byte* at, Address from, uint scope)
    {
        ControlHeader* header = (ControlHeader*)at;
        byte* data = at + sizeof(ControlHeader);
        if (from.IsV4)
        {
            // struct in_pktinfo: interface (any), address to send from, unused.
            *header = new() { Length = (nuint)(sizeof(ControlHeader) + 12), Level = ControlHeader.Ip, Type = ControlHeader.IpPacketInfo };
            new Span<byte>(data, 12).Clear();
            BinaryPrimitives.WriteUInt32BigEndian(new Span<byte>(data + 4, 4), (uint)from.Low);
        }
        else
        {
            // struct in6_pktinfo: address to send from, interface, which matters for link-local addresses only.
            *header = new() { Length = (nuint)(sizeof(ControlHeader) + 20), Level = ControlHeader.Ipv6, Type = ControlHeader.Ipv6PacketInfo };
            from.Write(new Span<byte>(data, Address.Size));
            *(uint*)(data + Address.Size) = scope;
        }

        return ControlHeader.Space(header->Length);
    }

    static int SegmentSizeSpace => ControlHeader.Space((nuint)(sizeof(ControlHeader) + sizeof(ushort)));

    static int WriteSegmentSize(byte* at, int size)
    {
        *(ControlHeader*)at = new() { Length = (nuint)(sizeof(ControlHeader) + sizeof(ushort)), Level = ControlHeader.Udp, Type = ControlHeader.SegmentSize };
        *(ushort*)(at + sizeof(ControlHeader)) = (ushort)size;
        return SegmentSizeSpace;
    }
}
