using System.Buffers.Binary;
using System.Text;

namespace Pesto.Linux;

/// <summary>An IPv6 address, or an IPv4 address in its v4-mapped form (::ffff:a.b.c.d): one form for both families.</summary>
public readonly record struct Address(ulong High, ulong Low)
{
    const ulong MappedPrefix = 0xffff_0000_0000;

    /// <summary>The length of an address on the wire, in bytes.</summary>
    public const int Size = 16;

    /// <summary>"::", which stands for any address, or for none where none is given.</summary>
    public static readonly Address Any;

    public static readonly Address AnyV4 = FromV4(0);

    public static readonly Address LoopbackV4 = FromV4(0x7f00_0001);

    public static readonly Address LoopbackV6 = new(0, 1);

    /// <param name="address">In host byte order: 0x7f000001 is 127.0.0.1.</param>
    public static Address FromV4(uint address) => new(0, MappedPrefix | address);

    public bool IsV4 => High == 0 && Low >> 32 == MappedPrefix >> 32;

    public bool IsV6 => !IsV4;

    /// <summary>"::" alone; 0.0.0.0 is <see cref="AnyV4"/>.</summary>
    public bool IsAny => High == 0 && Low == 0;

    /// <summary>The wildcard of its own family.</summary>
    public bool IsWildcard => IsAny || this == AnyV4;

    public bool IsLoopback => this == LoopbackV6 || (IsV4 && (Low >> 24 & 0xff) == 127);

    /// <summary>224.0.0.0/4 or ff00::/8.</summary>
    public bool IsMulticast => IsV4 ? (Low >> 28 & 0xf) == 0xe : High >> 56 == 0xff;

    /// <summary>255.255.255.255.</summary>
    public bool IsBroadcast => this == FromV4(uint.MaxValue);

    /// <summary>fe80::/10: valid only together with an interface.</summary>
    public bool IsLinkLocal => High >> 54 == 0xfe80 >> 6;

    /// <summary>Reads the 16 bytes of an address in network byte order.</summary>
    public static Address Read(ReadOnlySpan<byte> bytes) =>
        new(BinaryPrimitives.ReadUInt64BigEndian(bytes), BinaryPrimitives.ReadUInt64BigEndian(bytes[8..]));

    public void Write(Span<byte> bytes)
    {
        BinaryPrimitives.WriteUInt64BigEndian(bytes, High);
        BinaryPrimitives.WriteUInt64BigEndian(bytes[8..], Low);
    }

    /// <summary>Reads the text of an IPv4 or IPv6 address, by the rules of inet_pton(3): all four parts, no octal, no scope.</summary>
    public static unsafe bool TryParse(ReadOnlySpan<char> text, out Address address)
    {
        address = default;
        if (text.Length is 0 or > 45)
            return false;
        byte* utf8 = stackalloc byte[64];
        if (Encoding.ASCII.GetBytes(text, new Span<byte>(utf8, 64)) != text.Length || text.Contains('\0'))
            return false;
        utf8[text.Length] = 0;
        byte* raw = stackalloc byte[Size];
        if (Libc.inet_pton(SocketAddress.V4, utf8, raw) == 1)
            address = FromV4(BinaryPrimitives.ReadUInt32BigEndian(new ReadOnlySpan<byte>(raw, 4)));
        else if (Libc.inet_pton(SocketAddress.V6, utf8, raw) == 1)
            address = Read(new ReadOnlySpan<byte>(raw, Size));
        else
            return false;
        return true;
    }

    /// <summary>The usual text, as inet_ntop(3) gives it; IPv4 without its v4-mapped prefix.</summary>
    public override string ToString()
    {
        Span<byte> text = stackalloc byte[64];
        TryFormat(text, out int written);
        return Encoding.ASCII.GetString(text[..written]);
    }

    /// <summary>Writes the text without allocating; 46 bytes always suffice.</summary>
    public unsafe bool TryFormat(Span<byte> destination, out int written)
    {
        byte* raw = stackalloc byte[Size];
        Write(new Span<byte>(raw, Size));
        byte* text = stackalloc byte[64];
        byte* end = IsV4 ? Libc.inet_ntop(SocketAddress.V4, raw + 12, text, 64) : Libc.inet_ntop(SocketAddress.V6, raw, text, 64);
        written = 0;
        if (end == null)
            return false;
        while (text[written] != 0)
            written++;
        return new ReadOnlySpan<byte>(text, written).TryCopyTo(destination);
    }
}
