using System.Buffers.Binary;
using System.Buffers.Text;
using System.Runtime.InteropServices;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Listening;

/// <summary>
/// Gives a target the addresses of the client and of what it connected to: the PROXY protocol, versions 1 and 2 (HAProxy's doc/proxy-protocol.txt). It goes
/// before the first byte of a stream, or before the payload of each datagram.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
public unsafe struct ProxyHeader
{
    /// <summary>The longest of version 1.</summary>
    const int MostBytes = 107;

    // Of version 2: signature, version and command, family and protocol, length of what follows; that is addresses, then ports.
    const int FixedSize = 16, VersionAt = 12, FamilyAt = 13, LengthAt = 14;

    int _length;
    fixed byte _bytes[MostBytes];

    /// <summary>In bytes; 0 if there is none.</summary>
    public readonly int Length => _length;

    public readonly ReadOnlySpan<byte> Bytes => MemoryMarshal.CreateReadOnlySpan(in _bytes[0], _length);

    static ReadOnlySpan<byte> Signature => [0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a];

    /// <summary>A line of text, for TCP only.</summary>
    public static ProxyHeader Version1(in SocketAddress client, in SocketAddress destination)
    {
        ProxyHeader header = default;
        header.Append(client.Address.IsV4 ? "PROXY TCP4 "u8 : "PROXY TCP6 "u8);
        header.Append(client.Address);
        header.Append(destination.Address);
        header.Append(client.Port);
        header.Append(" "u8);
        header.Append(destination.Port);
        header.Append("\r\n"u8);
        return header;
    }

    /// <summary>Binary.</summary>
    /// <param name="destination">Of the client's family.</param>
    public static ProxyHeader Version2(IpProtocol protocol, in SocketAddress client, in SocketAddress destination)
    {
        const byte Version2Proxied = 0x21, FamilyV4 = 0x10, FamilyV6 = 0x20, Stream = 1, Datagram = 2;
        ProxyHeader header = default;
        header.Append(Signature);
        header._length = FixedSize;
        bool isV4 = client.Address.IsV4;
        Span<byte> bytes = MemoryMarshal.CreateSpan(ref header._bytes[0], MostBytes);
        bytes[VersionAt] = Version2Proxied;
        bytes[FamilyAt] = (byte)((isV4 ? FamilyV4 : FamilyV6) | (protocol == IpProtocol.Tcp ? Stream : Datagram));
        header.AppendBinary(client.Address, isV4);
        header.AppendBinary(destination.Address, isV4);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[header._length..], client.Port);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[(header._length + sizeof(ushort))..], destination.Port);
        header._length += 2 * sizeof(ushort);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[LengthAt..], (ushort)(header._length - FixedSize));
        return header;
    }

    Span<byte> Rest => MemoryMarshal.CreateSpan(ref _bytes[0], MostBytes)[_length..];

    void Append(ReadOnlySpan<byte> text)
    {
        text.CopyTo(Rest);
        _length += text.Length;
    }

    void Append(Address address)
    {
        _ = address.TryFormat(Rest, out int written);
        _length += written;
        Append(" "u8);
    }

    void Append(ushort port)
    {
        _ = Utf8Formatter.TryFormat(port, Rest, out int written);
        _length += written;
    }

    void AppendBinary(Address address, bool isV4)
    {
        const int V4Size = 4;
        if (isV4)
            BinaryPrimitives.WriteUInt32BigEndian(Rest, (uint)address.Low);
        else
            address.Write(Rest);
        _length += isV4 ? V4Size : Address.Size;
    }
}
