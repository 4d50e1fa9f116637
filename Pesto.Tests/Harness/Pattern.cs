namespace Pesto.Tests.Harness;

/// <summary>
/// A stream of bytes that looks random and is known: what one side sends from it, the other compares with its own copy, so
/// that a byte that is lost, doubled or out of place shows at once.
/// </summary>
sealed class Pattern(int seed)
{
    readonly byte[] _block = NewBlock(seed);

    public long Position { get; private set; }

    static byte[] NewBlock(int seed)
    {
        // A prime length, so that no buffer's size falls in step with it.
        byte[] bytes = new byte[65_521];
        new Random(seed).NextBytes(bytes);
        return bytes;
    }

    /// <summary>Gives the next bytes.</summary>
    public void Fill(Span<byte> to)
    {
        while (to.Length > 0)
        {
            ReadOnlySpan<byte> piece = Next(to.Length);
            piece.CopyTo(to);
            to = to[piece.Length..];
        }
    }

    public byte[] Take(int length)
    {
        byte[] bytes = new byte[length];
        Fill(bytes);
        return bytes;
    }

    /// <summary>Goes on where it was left off, as long as these are the next bytes; fails at the first that is not.</summary>
    public void Check(ReadOnlySpan<byte> bytes)
    {
        while (bytes.Length > 0)
        {
            long at = Position;
            ReadOnlySpan<byte> piece = Next(bytes.Length);
            int same = piece.CommonPrefixLength(bytes);
            if (same < piece.Length)
                Assert.Fail($"byte {at + same} of the stream is wrong");
            bytes = bytes[piece.Length..];
        }
    }

    /// <summary>Puts back what was given last and not sent.</summary>
    public void StepBack(int count) => Position -= count;

    ReadOnlySpan<byte> Next(int most)
    {
        int at = (int)(Position % _block.Length);
        int length = Math.Min(most, _block.Length - at);
        Position += length;
        return _block.AsSpan(at, length);
    }
}
