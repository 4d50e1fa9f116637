using Pesto.Forwarder.Loop;
using Pesto.Linux;

namespace Pesto.Tests.Loop;

public sealed class TimeoutListTests
{
    const int Capacity = 20;
    const long Duration = 1000;

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void A_list_has_the_items_and_the_deadline_that_an_ordinary_list_has(int seed)
    {
        Random random = new(seed);
        TimeoutList list = new(Capacity, Duration);
        List<(int Index, long Start)> model = [];
        long now = 0;
        for (int step = 0; step < 20_000; step++)
        {
            now += random.Next(3);
            int index = random.Next(Capacity);
            int at = model.FindIndex(item => item.Index == index);
            bool stays = at < 0 || random.Next(2) == 0;
            if (at < 0)
                list.Start(index, now);
            else if (stays)
                list.Restart(index, now);
            else
                list.Stop(index);
            if (at >= 0)
                model.RemoveAt(at);
            if (stays)
                model.Add((index, now));
            Assert.Equal(model.Count == 0 ? -1 : model[0].Index, list.First);
            Assert.Equal(model.Count == 0 ? long.MaxValue : model[0].Start + Duration, list.Deadline);
        }
    }

    [Fact]
    public void An_item_is_in_once_or_not_at_all()
    {
        TimeoutList list = new(Capacity, Duration);
        for (int i = 0; i < Capacity; i++)
            Assert.Throws<CheckFailedException>(() => list.Stop(i));
        list.Start(5, 0);
        list.Start(0, 0);
        Assert.Throws<CheckFailedException>(() => list.Start(5, 0));
        Assert.Throws<CheckFailedException>(() => list.Start(0, 0));
        list.Stop(5);
        Assert.Throws<CheckFailedException>(() => list.Stop(5));
        Assert.Throws<CheckFailedException>(() => list.Restart(5, 0));
    }
}
