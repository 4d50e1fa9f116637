namespace Pesto.Linux;

/// <summary>
/// Messages put together from received datagrams, to be sent by one call. A message is one datagram, or a row of datagrams
/// of one size that goes through the network stack as one and is cut apart at its end (UDP_SEGMENT).
/// </summary>
public sealed unsafe class Outgoing
{
    /// <summary>The most datagrams that may go as one: older kernels take no more.</summary>
    public const int MostInRow = 64;

    /// <summary>The most bytes that may go as one: what one IP packet holds, with room for its headers.</summary>
    public const int MostBytesInRow = 65_000;

    const int ControlSize = 96;
    const int NoSignal = 0x4000, DontWait = 0x40;

    readonly NativeArray<MessageHeader> _headers;
    readonly NativeArray<byte> _controls;
    readonly NativeArray<Parcel> _parcels;

    public Outgoing(int capacity)
    {
        _headers = new(capacity);
        _controls = new(capacity * ControlSize);
        _parcels = new(capacity);
    }

    /// <summary>What became of a message.</summary>
    public struct Parcel
    {
        /// <summary>Whose it is, as the caller said.</summary>
        public int Owner;

        /// <summary>How many datagrams it is.</summary>
        public int Datagrams;

        /// <summary>How many bytes it is.</summary>
        public int Bytes;

        /// <summary>The size of each of a row, or 0.</summary>
        public int Segment;

        /// <summary>How many of them could not be sent.</summary>
        public int Lost;

        /// <summary>The kernel or the path does not take such rows: they went one by one.</summary>
        public bool RowRefused;

        /// <summary>Why the last that was lost could not be sent.</summary>
        public Errno Error;
    }

    public int Count { get; private set; }

    public ref readonly Parcel this[int message] => ref _parcels[message];

    public void Clear() => Count = 0;

    /// <summary>Adds a message: places of a batch, which stay as they are until it is sent.</summary>
    /// <param name="owner">Whatever tells the caller whose it is.</param>
    /// <param name="segment">The size of each datagram if they are to go as a row, or 0.</param>
    /// <param name="to">Where to, or null on a connected socket; stays where it is until the message is sent.</param>
    /// <param name="from">The local address to send from; "::" for the kernel's choice.</param>
    public void Add(int owner, Datagrams batch, int first, int count, int segment, SocketAddress* to, Address from)
    {
        int message = Count++;
        byte* control = _controls.Pointer + (message * ControlSize);
        int length = from.IsAny ? 0 : WriteSource(control, from, to->Scope);
        ref Parcel parcel = ref _parcels[message];
        parcel = new() { Owner = owner, Segment = segment };
        for (int i = first; i < first + count; i++)
        {
            parcel.Datagrams += batch.Held(i);
            parcel.Bytes += batch.Length(i);
        }

        if (segment != 0)
            length += WriteSegment(control + length, segment);
        _headers[message].Message = new()
        {
            Name = to,
            NameLength = to == null ? 0 : to->Length,
            Vectors = batch.Filled(first),
            VectorCount = (nuint)count,
            Control = length == 0 ? null : control,
            ControlLength = (nuint)length,
        };
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

            ref Parcel parcel = ref _parcels[done];
            if (sent.Is(Errno.EINTR))
                continue;
            all = false;
            if (parcel.Segment != 0 && sent.Error is Errno.EINVAL or Errno.EMSGSIZE or Errno.EIO)
            {
                SendOneByOne(fd, done);
            }
            else
            {
                Lose(done, sent.Error);
            }

            done++;
            // No room: what follows would find none either.
            while (sent.Is(Errno.EAGAIN) && done < Count)
                Lose(done++, sent.Error);
        }

        return all;
    }

    void Lose(int message, Errno error)
    {
        ref Parcel parcel = ref _parcels[message];
        parcel.Lost = parcel.Datagrams;
        parcel.Error = error;
    }

    /// <summary>A row whose datagrams are larger than the path takes whole, or that the device can't cut apart.</summary>
    void SendOneByOne(int fd, int message)
    {
        ref Parcel parcel = ref _parcels[message];
        parcel.RowRefused = true;
        MessageHeader.Inner single = _headers[message].Message;
        single.ControlLength -= (nuint)WrittenSegment;
        if (single.ControlLength == 0)
            single.Control = null;
        IoVector piece;
        single.Vectors = &piece;
        single.VectorCount = 1;
        for (nuint i = 0; i < _headers[message].Message.VectorCount; i++)
        {
            IoVector* vector = _headers[message].Message.Vectors + i;
            for (nuint at = 0; at < vector->Length; at += (nuint)parcel.Segment)
            {
                piece = new() { Base = vector->Base + at, Length = Math.Min((nuint)parcel.Segment, vector->Length - at) };
                Result sent = Result.Of(Libc.sendmsg(fd, &single, NoSignal | DontWait));
                if (sent.Ok)
                    continue;
                parcel.Lost++;
                parcel.Error = sent.Error;
            }
        }
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
            System.Buffers.Binary.BinaryPrimitives.WriteUInt32BigEndian(new Span<byte>(data + 4, 4), (uint)from.Low);
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

    static int WrittenSegment => ControlHeader.Space((nuint)(sizeof(ControlHeader) + sizeof(ushort)));

    static int WriteSegment(byte* at, int segment)
    {
        *(ControlHeader*)at = new() { Length = (nuint)(sizeof(ControlHeader) + sizeof(ushort)), Level = ControlHeader.Udp, Type = ControlHeader.SegmentSize };
        *(ushort*)(at + sizeof(ControlHeader)) = (ushort)segment;
        return WrittenSegment;
    }
}
