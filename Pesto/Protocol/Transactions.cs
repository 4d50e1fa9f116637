using System.Buffers.Binary;
using System.Text;
using Pesto.Linux;

namespace Pesto.Protocol;

/// <summary>
/// Pesto's extension of the control protocol: an update either takes effect as a whole, with the outcome told to the
/// client, or leaves no trace. See README.md in this folder for the exchange. All integers are big-endian.
/// </summary>
public static class Transactions
{
    public const uint Version = 1;

    /// <summary>Where a version 2 client sends its first pif number, one that knows transactions sends this, u32 version, u32 flags (0).</summary>
    public static ReadOnlySpan<byte> Magic => "basil:c\0"u8;

    public const int HelloSize = 16;

    /// <summary>u8 type, u32 length of the body.</summary>
    public const int HeadSize = 5;

    /// <summary>In front of a verdict's text: u32 status, u8 pif, u32 rule, u16 length of the text.</summary>
    public const int VerdictSize = 11;

    /// <summary>In front of an outcome's entries: u32 failures in all, u32 entries that follow.</summary>
    public const int OutcomeSize = 8;

    /// <summary>u8 pif, u32 rule, u16 port, u32 errno.</summary>
    public const int EntrySize = 11;

    /// <summary>The most entries that an outcome has; there may be more failures than that.</summary>
    public const int MostEntries = 1024;

    /// <summary>The longest text of a verdict, in bytes of UTF-8.</summary>
    public const int LongestText = 1024;

    /// <summary>Longer than any message that a server sends, in bytes.</summary>
    public const int LongestServerBody = 64 * 1024;

    /// <summary>The longest that a client can ask to be given between apply and commit, in seconds.</summary>
    public const uint LongestConfirmation = 3600;

    /// <summary>In a verdict that is not about a rule.</summary>
    public const uint NoRule = uint.MaxValue;

    public static void WriteHello(Span<byte> to)
    {
        Magic.CopyTo(to);
        BinaryPrimitives.WriteUInt32BigEndian(to[8..], Version);
        BinaryPrimitives.WriteUInt32BigEndian(to[12..], 0);
    }

    public static bool IsHello(ReadOnlySpan<byte> from) =>
        from[..8].SequenceEqual(Magic) && BinaryPrimitives.ReadUInt32BigEndian(from[8..]) == Version && BinaryPrimitives.ReadUInt32BigEndian(from[12..]) == 0;

    public static void WriteHead(Span<byte> to, MessageType type, int bodyLength)
    {
        to[0] = (byte)type;
        BinaryPrimitives.WriteUInt32BigEndian(to[1..], (uint)bodyLength);
    }

    /// <summary>Unknown types with this bit are to be skipped; other unknown types end the transaction.</summary>
    public static bool MaySkip(byte type) => (type & 0x80) != 0;

    /// <summary>Writes a verdict with its head and returns the length of both; a text that is too long is cut off.</summary>
    public static int WriteVerdict(Span<byte> to, VerdictStatus status, byte pif, uint rule, string text)
    {
        Span<byte> utf8 = to.Slice(HeadSize + VerdictSize, LongestText);
        _ = System.Text.Unicode.Utf8.FromUtf16(text, utf8, out int _, out int length);
        WriteHead(to, MessageType.Verdict, VerdictSize + length);
        BinaryPrimitives.WriteUInt32BigEndian(to[HeadSize..], (uint)status);
        to[HeadSize + 4] = pif;
        BinaryPrimitives.WriteUInt32BigEndian(to[(HeadSize + 5)..], rule);
        BinaryPrimitives.WriteUInt16BigEndian(to[(HeadSize + 9)..], (ushort)length);
        return HeadSize + VerdictSize + length;
    }

    public static void WriteEntry(Span<byte> to, byte pif, uint rule, ushort port, Errno error)
    {
        to[0] = pif;
        BinaryPrimitives.WriteUInt32BigEndian(to[1..], rule);
        BinaryPrimitives.WriteUInt16BigEndian(to[5..], port);
        BinaryPrimitives.WriteUInt32BigEndian(to[7..], (uint)error);
    }

    public static (byte Pif, uint Rule, ushort Port, Errno Error) ReadEntry(ReadOnlySpan<byte> from) =>
        (from[0], BinaryPrimitives.ReadUInt32BigEndian(from[1..]), BinaryPrimitives.ReadUInt16BigEndian(from[5..]), (Errno)BinaryPrimitives.ReadUInt32BigEndian(from[7..]));

    public static string ReadText(ReadOnlySpan<byte> from) => Encoding.UTF8.GetString(from);
}

/// <summary>What a message is; even numbers are the server's.</summary>
public enum MessageType : byte
{
    /// <summary>Client: an update as in version 2, up to and with the final 0.</summary>
    Tables = 1,

    /// <summary>Server: whether the tables are valid. A status other than 0 ends the exchange.</summary>
    Verdict = 2,

    /// <summary>Client: put them in force; u32 seconds until which it will commit, 0 for the server's own time-out.</summary>
    Apply = 3,

    /// <summary>Server: they are in force, and which ports could not be opened.</summary>
    Outcome = 4,

    /// <summary>Client: keep them; no body.</summary>
    Commit = 5,

    /// <summary>Server: it is over: u32 status, then as an outcome what could not be restored. The server closes.</summary>
    Done = 6,

    /// <summary>Client: put the old ones in force again; no body.</summary>
    Rollback = 7,
}

public enum VerdictStatus : uint
{
    /// <summary>Valid and staged; no socket was touched.</summary>
    Valid = 0,

    /// <summary>A rule or a table is invalid.</summary>
    Invalid = 1,

    /// <summary>There are not enough descriptors for the listening sockets that the tables want.</summary>
    TooManySockets = 2,

    /// <summary>A rule would forward to the forwarder itself.</summary>
    SelfForwarding = 3,
}

public enum DoneStatus : uint
{
    Committed = 0,
    RolledBack = 1,

    /// <summary>The client did not commit in time.</summary>
    TimedOut = 2,

    /// <summary>The client broke the protocol.</summary>
    ProtocolError = 3,
}
