using System.Buffers.Binary;
using System.Text;
using System.Text.Unicode;

namespace Pesto.Protocol;

/// <summary>What the server thinks of tables: u32 status, u8 pif, u32 rule, u16 length of the text, text in UTF-8.</summary>
/// <param name="Pif">The number of the pif that the text is about, 0 for none.</param>
/// <param name="Rule">The position of the rule that the text is about, counted over all of the pif's, or <see cref="NoRule"/>.</param>
/// <param name="Text">For people: what is wrong. At most <see cref="LongestText"/> bytes of it are sent.</param>
public readonly record struct VerdictMessage(VerdictStatus Status, byte Pif, uint Rule, string Text)
{
    public const uint NoRule = uint.MaxValue;

    public const int LongestText = 1024;

    /// <summary>The longest that the message gets, with its head, in bytes.</summary>
    public const int MostBytes = MessageHead.Size + FixedSize + LongestText;

    const int FixedSize = 11;

    public static VerdictMessage Valid => new(VerdictStatus.Valid, 0, NoRule, "");

    /// <returns>False if the body is none of a verdict.</returns>
    public static bool TryRead(ReadOnlySpan<byte> body, out VerdictMessage verdict)
    {
        verdict = default;
        if (body.Length < FixedSize || body.Length != FixedSize + BinaryPrimitives.ReadUInt16BigEndian(body[9..]))
            return false;
        verdict = new(
            (VerdictStatus)BinaryPrimitives.ReadUInt32BigEndian(body),
            body[4],
            BinaryPrimitives.ReadUInt32BigEndian(body[5..]),
            Encoding.UTF8.GetString(body[FixedSize..]));
        return true;
    }

    /// <summary>Writes head and body.</summary>
    /// <returns>The bytes written.</returns>
    public int Write(Span<byte> to)
    {
        Span<byte> body = to[MessageHead.Size..];
        // A text that is too long is cut between two characters.
        _ = Utf8.FromUtf16(Text, body.Slice(FixedSize, LongestText), out int _, out int length);
        BinaryPrimitives.WriteUInt32BigEndian(body, (uint)Status);
        body[4] = Pif;
        BinaryPrimitives.WriteUInt32BigEndian(body[5..], Rule);
        BinaryPrimitives.WriteUInt16BigEndian(body[9..], (ushort)length);
        return new MessageHead(MessageType.Verdict, (uint)(FixedSize + length)).Write(to) + FixedSize + length;
    }
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
