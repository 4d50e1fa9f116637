using System.Buffers.Binary;

namespace Pesto.Protocol;

/// <summary>How a transaction ended: u32 status, then as in an outcome what could not be done at the end, normally nothing.</summary>
public readonly record struct DoneMessage(DoneStatus Status, OutcomeMessage Undone)
{
    /// <summary>The longest that the message gets, with its head, in bytes.</summary>
    public const int MostBytes = OutcomeMessage.MostBytes + StatusSize;

    const int StatusSize = 4;

    /// <returns>False if the body is none of an end.</returns>
    public static bool TryRead(ReadOnlySpan<byte> body, out DoneMessage done)
    {
        done = default;
        if (body.Length < StatusSize || !OutcomeMessage.TryRead(body[StatusSize..], out OutcomeMessage undone))
            return false;
        done = new((DoneStatus)BinaryPrimitives.ReadUInt32BigEndian(body), undone);
        return true;
    }

    /// <summary>Writes head and body.</summary>
    /// <returns>The bytes written.</returns>
    public static int Write(Span<byte> to, DoneStatus status, int failures, ReadOnlySpan<PortFailure> named)
    {
        BinaryPrimitives.WriteUInt32BigEndian(to[MessageHead.Size..], (uint)status);
        int length = StatusSize + OutcomeMessage.WriteBody(to[(MessageHead.Size + StatusSize)..], failures, named);
        return new MessageHead(MessageType.Done, (uint)length).Write(to) + length;
    }
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
