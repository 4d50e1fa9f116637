using System.Buffers.Binary;

namespace Pesto.Protocol;

/// <summary>In front of every message of a transaction: u8 type, u32 length of the body.</summary>
/// <param name="Length">Of the body, in bytes.</param>
public readonly record struct MessageHead(MessageType Type, uint Length)
{
    public const int Size = 5;

    /// <summary>Longer than the body of any message that a server sends, in bytes.</summary>
    public const uint LongestServerBody = 64 * 1024;

    /// <summary>Messages of an unknown type with the high bit are to be skipped; other unknown types end the transaction.</summary>
    public bool MaySkip => ((byte)Type & 0x80) != 0;

    /// <param name="from">At least <see cref="Size"/> bytes.</param>
    public static MessageHead Read(ReadOnlySpan<byte> from) => new((MessageType)from[0], BinaryPrimitives.ReadUInt32BigEndian(from[1..]));

    /// <returns>The bytes written: <see cref="Size"/>.</returns>
    public int Write(Span<byte> to)
    {
        to[0] = (byte)Type;
        BinaryPrimitives.WriteUInt32BigEndian(to[1..], Length);
        return Size;
    }
}

/// <summary>What a message is; even numbers are the server's.</summary>
public enum MessageType : byte
{
    /// <summary>Client: an update as in version 2, up to and with the final 0.</summary>
    Tables = 1,

    /// <summary>Server: whether the tables are valid. A status other than 0 ends the exchange.</summary>
    Verdict = 2,

    /// <summary>Client: put them in force.</summary>
    Apply = 3,

    /// <summary>Server: they are in force, and which ports could not be opened.</summary>
    Outcome = 4,

    /// <summary>Client: keep them; no body.</summary>
    Commit = 5,

    /// <summary>Server: it is over, and the server closes.</summary>
    Done = 6,

    /// <summary>Client: put the old ones in force again; no body.</summary>
    Rollback = 7,
}
