namespace Pesto.Forwarder.Loop;

/// <summary>The data word of an epoll event: the handler (kind), the item's index and generation, and the part of it, such as an end of a flow.</summary>
public readonly struct EventKey
{
    const int KindBits = 5, PartBits = 1, GenerationBits = 26;

    readonly ulong _word;

    public EventKey(ulong word) => _word = word;

    public EventKey(int kind, int index, uint generation, int part = 0) =>
        _word = (uint)index
            | (ulong)(generation & ((1u << GenerationBits) - 1)) << 32
            | (ulong)part << (32 + GenerationBits)
            | (ulong)kind << (32 + GenerationBits + PartBits);

    public ulong Word => _word;

    public int Index => (int)_word;

    public int Part => (int)(_word >> (32 + GenerationBits)) & 1;

    public int Kind => (int)(_word >> (32 + GenerationBits + PartBits)) & ((1 << KindBits) - 1);

    public bool IsOf(uint generation) => ((uint)(_word >> 32) & ((1u << GenerationBits) - 1)) == (generation & ((1u << GenerationBits) - 1));
}
