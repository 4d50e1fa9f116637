using Pesto.Forwarder.Loop;

namespace Pesto.Tests.Loop;

public sealed class ReadyListTests
{
    const int Capacity = 30;

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void A_ready_list_has_the_items_of_an_ordinary_list_each_once_in_their_order(int seed)
    {
        Random random = new(seed);
        ReadyList list = new(Capacity);
        List<int> model = [];
        for (int step = 0; step < 20_000; step++)
        {
            int index = random.Next(Capacity);
            switch (random.Next(4))
            {
                case 0 or 1:
                    list.Add(index);
                    if (!model.Contains(index))
                        model.Add(index);
                    break;
                case 2:
                    list.Remove(index);
                    model.Remove(index);
                    break;
                default:
                    Assert.Equal(model.Count == 0 ? -1 : model[0], list.TakeFirst());
                    if (model.Count > 0)
                        model.RemoveAt(0);
                    break;
            }

            Assert.Equal(model.Count, list.Count);
            for (int i = 0; i < Capacity; i++)
                Assert.Equal(model.Contains(i), list.Contains(i));
        }
    }

    [Fact]
    public void Each_item_has_one_turn_a_round_though_it_is_added_again_and_one_that_is_taken_out_meanwhile_has_none()
    {
        ReadyList list = new(Capacity);
        Work work = new(list);
        for (int i = 0; i < 5; i++)
            list.Add(i);
        work.Takes[1] = 3;
        List<int> expected = [0, 1, 2, 4];
        list.GiveTurns(work);
        // A machine that is held up between two turns ends the round early; the rest comes in the next, in the same order.
        while (work.Turns.Count < expected.Count)
            list.GiveTurns(work);
        Assert.Equal(expected, work.Turns.Take(expected.Count));
        Assert.Equal(4, list.Count);
    }

    [Fact]
    public void What_takes_its_time_leaves_the_turns_of_others_for_the_next_round()
    {
        ReadyList list = new(Capacity);
        Work work = new(list) { Milliseconds = 3 };
        for (int i = 0; i < 5; i++)
            list.Add(i);
        for (int round = 1; round <= 10; round++)
        {
            list.GiveTurns(work);
            Assert.Equal(round, work.Turns.Count);
        }

        Assert.Equal([0, 1, 2, 3, 4, 0, 1, 2, 3, 4], work.Turns);
    }

    sealed class Work(ReadyList list) : IReady
    {
        public List<int> Turns { get; } = [];

        /// <summary>What an item's turn takes out.</summary>
        public Dictionary<int, int> Takes { get; } = [];

        public int Milliseconds { get; init; }

        public void OnReady(int index)
        {
            Turns.Add(index);
            list.Add(index);
            if (Takes.TryGetValue(index, out int taken))
                list.Remove(taken);
            Thread.Sleep(Milliseconds);
        }
    }
}
