using System.Runtime.CompilerServices;
using System.Text;

namespace Pesto.Rules;

/// <summary>The name of a network interface, NUL-terminated and zero-filled as the kernel and the wire have it; empty for any interface.</summary>
[InlineArray(Size)]
public struct InterfaceName : IEquatable<InterfaceName>
{
    /// <summary>IFNAMSIZ of the kernel: the bytes of a name with its terminating NUL.</summary>
    public const int Size = 16;

    byte _first;

    public readonly bool IsEmpty => _first == 0;

    public readonly bool IsTerminated => ((ReadOnlySpan<byte>)this).Contains((byte)0);

    /// <summary>Takes over a name of 1 to 15 bytes in UTF-8 that an interface can have: not "." or "..", no slash or white space.</summary>
    public static bool TryParse(ReadOnlySpan<char> text, out InterfaceName name)
    {
        name = default;
        if (text.Length is 0 or >= Size || text is "." or ".." || text.ContainsAny("/ \t\n\v\f\r\0"))
            return false;
        return Encoding.UTF8.TryGetBytes(text, ((Span<byte>)name)[..(Size - 1)], out _);
    }

    public readonly ReadOnlySpan<byte> Bytes
    {
        [System.Diagnostics.CodeAnalysis.UnscopedRef]
        get
        {
            ReadOnlySpan<byte> all = this;
            int end = all.IndexOf((byte)0);
            return end < 0 ? all : all[..end];
        }
    }

    public readonly bool Equals(InterfaceName other) => ((ReadOnlySpan<byte>)this).SequenceEqual(other);

    public override readonly bool Equals(object? obj) => obj is InterfaceName other && Equals(other);

    public override readonly int GetHashCode()
    {
        HashCode hash = default;
        hash.AddBytes(this);
        return hash.ToHashCode();
    }

    public override readonly string ToString() => Encoding.UTF8.GetString(Bytes);
}
