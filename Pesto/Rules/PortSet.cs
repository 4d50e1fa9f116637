namespace Pesto.Rules;

/// <summary>A set of ports, 0 to 65535, as one bit each.</summary>
public sealed class PortSet
{
    readonly ulong[] _words = new ulong[(ushort.MaxValue + 1) / 64];

    public bool Contains(int port) => (_words[port >> 6] >> (port & 63) & 1) != 0;

    public void Add(PortRange range)
    {
        for (int port = range.First; port <= range.Last; port++)
            _words[port >> 6] |= 1ul << (port & 63);
    }

    /// <summary>Finds the next run of ports within a range that are not in the set.</summary>
    /// <param name="from">Where to look; afterwards, where to go on looking. Start with the range's first port.</param>
    public bool NextGap(PortRange within, ref int from, out PortRange gap)
    {
        while (from <= within.Last && Contains(from))
            from++;
        int first = from;
        while (from <= within.Last && !Contains(from))
            from++;
        gap = first <= within.Last ? new((ushort)first, (ushort)(from - 1)) : default;
        return first <= within.Last;
    }
}
