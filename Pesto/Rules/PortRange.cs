namespace Pesto.Rules;

/// <summary>Ports from <paramref name="First"/> to <paramref name="Last"/>, both included. 0 can be written, though never forwarded.</summary>
public readonly record struct PortRange(ushort First, ushort Last)
{
    /// <summary>What the kernel gives to connecting sockets unless told otherwise (net.ipv4.ip_local_port_range).</summary>
    public static readonly PortRange UsualEphemeral = new(32768, 60999);

    /// <summary>Every port that can be forwarded.</summary>
    public static readonly PortRange All = new(1, ushort.MaxValue);

    public int Count => Last - First + 1;

    /// <summary>Reads the text of net.ipv4.ip_local_port_range: two numbers and white space.</summary>
    public static bool TryParseSysctl(ReadOnlySpan<char> text, out PortRange range)
    {
        range = default;
        text = text.Trim();
        int gap = text.IndexOfAny(' ', '\t');
        if (gap < 0 || !ushort.TryParse(text[..gap], out ushort first) || !ushort.TryParse(text[gap..], out ushort last) || first > last)
            return false;
        range = new(first, last);
        return true;
    }

    public override string ToString() => First == Last ? $"{First}" : $"{First}-{Last}";
}
