using System.Buffers.Binary;
using Pesto.Linux;

namespace Pesto.Protocol;

/// <summary>A port that could not be opened: u8 pif, u32 rule, u16 port, u32 errno.</summary>
/// <param name="Rule">Its position in the pif's table.</param>
public readonly record struct PortFailure(byte Pif, uint Rule, ushort Port, Errno Error)
{
    public const int Size = 11;

    public static PortFailure Read(ReadOnlySpan<byte> from) =>
        new(from[0], BinaryPrimitives.ReadUInt32BigEndian(from[1..]), BinaryPrimitives.ReadUInt16BigEndian(from[5..]), (Errno)BinaryPrimitives.ReadUInt32BigEndian(from[7..]));

    /// <returns>The bytes written: <see cref="Size"/>.</returns>
    public int Write(Span<byte> to)
    {
        to[0] = Pif;
        BinaryPrimitives.WriteUInt32BigEndian(to[1..], Rule);
        BinaryPrimitives.WriteUInt16BigEndian(to[5..], Port);
        BinaryPrimitives.WriteUInt32BigEndian(to[7..], (uint)Error);
        return Size;
    }
}

/// <summary>What putting tables in force came to: u32 failures in all, u32 entries that follow, entries.</summary>
/// <param name="Failures">How many ports failed, named or not.</param>
/// <param name="Named">Those of them that are named, at most <see cref="MostNamed"/>.</param>
public readonly record struct OutcomeMessage(uint Failures, PortFailure[] Named)
{
    public const int MostNamed = 1024;

    /// <summary>The longest that the message gets, with its head, in bytes.</summary>
    public const int MostBytes = MessageHead.Size + FixedSize + (MostNamed * PortFailure.Size);

    const int FixedSize = 8;

    /// <returns>False if the body is none of an outcome.</returns>
    public static bool TryRead(ReadOnlySpan<byte> body, out OutcomeMessage outcome)
    {
        outcome = default;
        if (body.Length < FixedSize)
            return false;
        uint failures = BinaryPrimitives.ReadUInt32BigEndian(body), named = BinaryPrimitives.ReadUInt32BigEndian(body[4..]);
        body = body[FixedSize..];
        if (named > MostNamed || named > failures || failures > int.MaxValue || body.Length != named * PortFailure.Size)
            return false;
        PortFailure[] entries = new PortFailure[named];
        for (int i = 0; i < entries.Length; i++)
            entries[i] = PortFailure.Read(body[(i * PortFailure.Size)..]);
        outcome = new(failures, entries);
        return true;
    }

    /// <summary>Writes head and body.</summary>
    /// <returns>The bytes written.</returns>
    public static int Write(Span<byte> to, int failures, ReadOnlySpan<PortFailure> named)
    {
        int length = WriteBody(to[MessageHead.Size..], failures, named);
        return new MessageHead(MessageType.Outcome, (uint)length).Write(to) + length;
    }

    internal static int WriteBody(Span<byte> to, int failures, ReadOnlySpan<PortFailure> named)
    {
        BinaryPrimitives.WriteUInt32BigEndian(to, (uint)failures);
        BinaryPrimitives.WriteUInt32BigEndian(to[4..], (uint)named.Length);
        int at = FixedSize;
        foreach (PortFailure failure in named)
            at += failure.Write(to[at..]);
        return at;
    }
}
