using Pesto.Forwarder.Loop;
using Pesto.Linux;

namespace Pesto.Tests.Loop;

public sealed class SlotsTests
{
    const int Capacity = 50;

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void Slots_hold_what_an_ordinary_dictionary_holds(int seed)
    {
        Random random = new(seed);
        Slots<long> slots = new(Capacity);
        Dictionary<int, long> model = [];
        Dictionary<int, uint> lastGeneration = [];
        for (int step = 0; step < 20_000; step++)
        {
            if (random.Next(2) == 0)
                Take(slots, model, lastGeneration, random.NextInt64());
            else if (model.Count > 0)
                Return(slots, model, model.Keys.ElementAt(random.Next(model.Count)));
            Assert.Equal(model.Count, slots.Count);
            Assert.InRange(slots.High, model.Count, Capacity);
            for (int i = 0; i < slots.High; i++)
                Assert.Equal(model.ContainsKey(i), slots.IsTaken(i));
        }
    }

    static unsafe void Take(Slots<long> slots, Dictionary<int, long> model, Dictionary<int, uint> lastGeneration, long value)
    {
        int index = slots.Take();
        Assert.Equal(model.Count == Capacity, index < 0);
        if (index < 0)
            return;
        Assert.Equal(0, *slots[index]);
        *slots[index] = value;
        model.Add(index, value);
        Assert.NotEqual(lastGeneration.GetValueOrDefault(index), slots.Generation(index));
        lastGeneration[index] = slots.Generation(index);
    }

    static unsafe void Return(Slots<long> slots, Dictionary<int, long> model, int index)
    {
        Assert.Equal(model[index], *slots[index]);
        model.Remove(index);
        slots.Return(index);
    }

    [Fact]
    public void What_was_given_back_can_not_be_given_back_again()
    {
        Slots<int> slots = new(2);
        int taken = slots.Take();
        slots.Return(taken);
        Assert.Throws<CheckFailedException>(() => slots.Return(taken));
    }
}
