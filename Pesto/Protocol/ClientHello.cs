using System.Buffers.Binary;

namespace Pesto.Protocol;

/// <summary>
/// What a client that knows transactions sends where one of version 2 sends its first pif number: magic[8], u32 version,
/// u32 flags (0). Its first byte is no pif's number.
/// </summary>
public static class ClientHello
{
    public const uint Version = 1;

    public const int Size = 16;

    public static ReadOnlySpan<byte> Magic => "basil:c\0"u8;

    /// <returns>The bytes written: <see cref="Size"/>.</returns>
    public static int Write(Span<byte> to)
    {
        Magic.CopyTo(to);
        BinaryPrimitives.WriteUInt32BigEndian(to[8..], Version);
        BinaryPrimitives.WriteUInt32BigEndian(to[12..], 0);
        return Size;
    }

    /// <summary>Whether these <see cref="Size"/> bytes are a hello of the version that is spoken here, and ask for nothing else.</summary>
    public static bool IsUnderstood(ReadOnlySpan<byte> from) =>
        from[..8].SequenceEqual(Magic) && BinaryPrimitives.ReadUInt32BigEndian(from[8..]) == Version && BinaryPrimitives.ReadUInt32BigEndian(from[12..]) == 0;
}
