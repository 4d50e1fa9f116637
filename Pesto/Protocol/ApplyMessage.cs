using System.Buffers.Binary;

namespace Pesto.Protocol;

/// <summary>Asks that the staged tables be put in force: u32 seconds until which the client will commit.</summary>
/// <param name="Seconds">0 for the server's own time-out; the server gives <see cref="LongestConfirmation"/> at most.</param>
public readonly record struct ApplyMessage(uint Seconds)
{
    /// <summary>The longest that a client can ask to be given between apply and commit, in seconds.</summary>
    public const uint LongestConfirmation = 3600;

    public const int BodySize = 4;

    public const int Size = MessageHead.Size + BodySize;

    /// <param name="body"><see cref="BodySize"/> bytes.</param>
    public static ApplyMessage Read(ReadOnlySpan<byte> body) => new(BinaryPrimitives.ReadUInt32BigEndian(body));

    /// <summary>Writes head and body.</summary>
    /// <returns>The bytes written: <see cref="Size"/>.</returns>
    public int Write(Span<byte> to)
    {
        BinaryPrimitives.WriteUInt32BigEndian(to[MessageHead.Size..], Seconds);
        return new MessageHead(MessageType.Apply, BodySize).Write(to) + BodySize;
    }
}
