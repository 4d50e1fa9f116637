using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text;

namespace Pesto.Linux;

/// <summary>
/// Messages for the kernel, netlink(7), one behind the other: each a head, a fixed part, and attributes, which can hold attributes. All
/// lengths and numbers are in the machine's byte order where the name says nothing else.
/// </summary>
public sealed class NetlinkMessages
{
    /// <summary>Flags of a message: it is a request, is to be confirmed, makes what is not there, and fails (EEXIST) if it is there.</summary>
    public const ushort Request = 1, Acknowledge = 4, Exclusive = 0x200, Create = 0x400;

    /// <summary>An attribute that holds attributes.</summary>
    const ushort Nested = 0x8000;

    // struct nlmsghdr: length, type (16 bits), flags (16 bits), sequence, port.
    const int HeadSize = 16, SequenceAt = 8;

    // struct nlattr: length, type, 16 bits each.
    const int AttributeHeadSize = 4;

    readonly List<byte> _bytes = new(4096);
    int _message = -1;

    /// <summary>How many messages there are; their sequence numbers count from 1.</summary>
    public int Count { get; private set; }

    public ReadOnlySpan<byte> Bytes => CollectionsMarshal.AsSpan(_bytes);

    public void Clear()
    {
        _bytes.Clear();
        _message = -1;
        Count = 0;
    }

    /// <summary>Begins a message; what was added before belongs to the one before.</summary>
    /// <param name="body">The fixed part that the type has, such as struct rtmsg.</param>
    public void Begin(ushort type, ushort flags, ReadOnlySpan<byte> body)
    {
        _message = _bytes.Count;
        Count++;
        Span<byte> head = stackalloc byte[HeadSize];
        head.Clear();
        MemoryMarshal.Write(head[4..], type);
        MemoryMarshal.Write(head[6..], (ushort)(flags | Request));
        MemoryMarshal.Write(head[SequenceAt..], (uint)Count);
        _bytes.AddRange(head);
        Append(body);
    }

    public void Add(ushort type, ReadOnlySpan<byte> value)
    {
        int start = BeginAttribute(type);
        Append(value);
        EndAttribute(start, value.Length + AttributeHeadSize);
    }

    public void AddByte(ushort type, byte value) => Add(type, [value]);

    public void AddNumber(ushort type, uint value)
    {
        Span<byte> bytes = stackalloc byte[sizeof(uint)];
        MemoryMarshal.Write(bytes, value);
        Add(type, bytes);
    }

    /// <summary>In network byte order.</summary>
    public void AddBigEndian(ushort type, uint value)
    {
        Span<byte> bytes = stackalloc byte[sizeof(uint)];
        BinaryPrimitives.WriteUInt32BigEndian(bytes, value);
        Add(type, bytes);
    }

    /// <summary>64 bits in network byte order.</summary>
    public void AddLongBigEndian(ushort type, ulong value)
    {
        Span<byte> bytes = stackalloc byte[sizeof(ulong)];
        BinaryPrimitives.WriteUInt64BigEndian(bytes, value);
        Add(type, bytes);
    }

    /// <summary>With a NUL at its end.</summary>
    public void AddText(ushort type, string text) => Add(type, Encoding.ASCII.GetBytes(text + '\0'));

    /// <summary>Begins an attribute that holds those that follow, up to <see cref="EndNest"/> with what this returns.</summary>
    public int BeginNest(ushort type) => BeginAttribute((ushort)(type | Nested));

    public void EndNest(int nest) => EndAttribute(nest, _bytes.Count - nest);

    int BeginAttribute(ushort type)
    {
        int start = _bytes.Count;
        Span<byte> head = stackalloc byte[AttributeHeadSize];
        head.Clear();
        MemoryMarshal.Write(head[2..], type);
        _bytes.AddRange(head);
        return start;
    }

    void EndAttribute(int start, int length)
    {
        MemoryMarshal.Write(CollectionsMarshal.AsSpan(_bytes)[start..], (ushort)length);
        SetMessageLength();
    }

    /// <summary>Everything begins at a multiple of four.</summary>
    void Append(ReadOnlySpan<byte> bytes)
    {
        _bytes.AddRange(bytes);
        while (_bytes.Count % 4 != 0)
            _bytes.Add(0);
        SetMessageLength();
    }

    void SetMessageLength() => MemoryMarshal.Write(CollectionsMarshal.AsSpan(_bytes)[_message..], _bytes.Count - _message);
}
