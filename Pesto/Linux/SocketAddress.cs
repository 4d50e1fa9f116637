using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace Pesto.Linux;

/// <summary>A sockaddr_in or sockaddr_in6, in the kernel's layout, with its length.</summary>
[StructLayout(LayoutKind.Explicit, Size = 32)]
public struct SocketAddress
{
    // struct sockaddr_in6: family, port, flow information, address, scope; sockaddr_in has its address where flow information is.
    [FieldOffset(0)] public ushort Family;
    [FieldOffset(2)] ushort _portBytes;
    [FieldOffset(4)] uint _v4;
    [FieldOffset(8)] ulong _v6High;
    [FieldOffset(16)] ulong _v6Low;
    /// <summary>The interface index that a link-local IPv6 address belongs to, else 0.</summary>
    [FieldOffset(24)] public uint Scope;
    /// <summary>The bytes that count: 16 for IPv4, 28 for IPv6.</summary>
    [FieldOffset(28)] public uint Length;

    /// <summary>Of any family here, as <see cref="Length"/> counts.</summary>
    public const uint MostBytes = 28;

    public const ushort V4 = 2;
    public const ushort V6 = 10;

    /// <summary>An address of family IPv4 for v4-mapped addresses, else of family IPv6.</summary>
    public static SocketAddress Of(Address address, ushort port, uint scope = 0)
    {
        SocketAddress result = default;
        result.Port = port;
        if (address.IsV4)
        {
            result.Family = V4;
            result._v4 = BinaryPrimitives.ReverseEndianness((uint)address.Low);
            result.Length = 16;
        }
        else
        {
            result.Family = V6;
            result._v6High = BinaryPrimitives.ReverseEndianness(address.High);
            result._v6Low = BinaryPrimitives.ReverseEndianness(address.Low);
            result.Scope = scope;
            result.Length = 28;
        }

        return result;
    }

    public readonly bool Equals(in SocketAddress other) => Port == other.Port && Address == other.Address && Scope == other.Scope;

    /// <summary>In host byte order.</summary>
    public ushort Port
    {
        readonly get => BinaryPrimitives.ReverseEndianness(_portBytes);
        set => _portBytes = BinaryPrimitives.ReverseEndianness(value);
    }

    /// <summary>The address; IPv4 as v4-mapped IPv6.</summary>
    public readonly Address Address => Family == V4
        ? Address.FromV4(BinaryPrimitives.ReverseEndianness(_v4))
        : new Address(BinaryPrimitives.ReverseEndianness(_v6High), BinaryPrimitives.ReverseEndianness(_v6Low));
}
