using Pesto.Forwarder.Loop;

namespace Pesto.Tests.Loop;

public sealed class EventKeyTests
{
    const int Kinds = 32;
    const uint Generations = 1 << 26;

    [Fact]
    public void A_key_gives_back_what_was_put_into_it()
    {
        Random random = new(1);
        for (int i = 0; i < 100_000; i++)
        {
            (int kind, int index, uint generation, int part) = (random.Next(Kinds), random.Next(), (uint)random.NextInt64(uint.MaxValue), random.Next(2));
            EventKey key = new(new EventKey(kind, index, generation, part).Word);
            Assert.Equal((kind, index, part), (key.Kind, key.Index, key.Part));
            Assert.True(key.IsOf(generation));
            // The next that have the same place, up to as many as are told apart.
            Assert.False(key.IsOf(generation + 1 + (uint)random.NextInt64(Generations - 1)));
        }
    }

    [Fact]
    public void Keys_of_different_things_differ()
    {
        HashSet<ulong> seen = [];
        foreach (int index in (int[])[0, 1, 2, int.MaxValue])
        {
            foreach (uint generation in (uint[])[0, 1, Generations - 1])
            {
                for (int kind = 0; kind < Kinds; kind++)
                    Assert.True(seen.Add(new EventKey(kind, index, generation, 0).Word) && seen.Add(new EventKey(kind, index, generation, 1).Word));
            }
        }
    }
}
