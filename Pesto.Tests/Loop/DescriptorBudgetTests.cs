using Pesto.Forwarder.Loop;
using Pesto.Linux;

namespace Pesto.Tests.Loop;

public sealed class DescriptorBudgetTests
{
    static readonly DescriptorUse[] Uses = Enum.GetValues<DescriptorUse>();

    static bool IsListening(DescriptorUse use) => use is DescriptorUse.ListeningExplicit or DescriptorUse.ListeningAuto;

    [Theory]
    [InlineData(64)]
    [InlineData(200)]
    [InlineData(256)]
    [InlineData(401)]
    [InlineData(20_000)]
    [InlineData(1 << 20)]
    public void Whatever_is_taken_and_given_back_it_counts_as_a_dictionary_does_and_nothing_gets_more_than_its_most(int descriptors)
    {
        Random random = new(descriptors);
        DescriptorBudget budget = new(descriptors);
        Dictionary<DescriptorUse, int> model = Uses.ToDictionary(use => use, _ => 0);
        int largest = Math.Max(2, descriptors / 20);
        for (int step = 0; step < 20_000; step++)
        {
            DescriptorUse use = Uses[random.Next(Uses.Length)];
            int count = 1 + random.Next(largest);
            if (random.Next(3) == 0)
            {
                count = Math.Min(count, model[use]);
                budget.Give(use, count);
                model[use] -= count;
            }
            else if (budget.TryTake(use, count))
            {
                model[use] += count;
            }

            Assert.All(Uses, each => Assert.Equal(model[each], budget.Taken(each)));
            Assert.All(Uses, each => Assert.InRange(model[each], 0, budget.Most(each)));
            Assert.Equal(model[DescriptorUse.ListeningExplicit] + model[DescriptorUse.ListeningAuto], budget.Listening);
            Assert.InRange(budget.Listening, 0, budget.Most(DescriptorUse.ListeningExplicit));
            Assert.InRange(model.Values.Sum(), 0, descriptors - budget.PoolSize);
        }
    }

    [Theory]
    [InlineData(200)]
    [InlineData(401)]
    [InlineData(20_000)]
    public void However_much_all_others_have_taken_each_use_gets_something(int descriptors)
    {
        foreach (DescriptorUse last in Uses.Where(use => use is not (DescriptorUse.Pipe or DescriptorUse.ListeningAuto)))
        {
            // Twice, in either order, as who comes first gets what is left over.
            foreach (IEnumerable<DescriptorUse> order in (IEnumerable<DescriptorUse>[])[Uses, Uses.Reverse()])
            {
                DescriptorBudget budget = new(descriptors);
                foreach (DescriptorUse use in order.Where(use => use != last && (!IsListening(use) || !IsListening(last))))
                    TakeAll(budget, use);
                Assert.InRange(TakeAll(budget, last), last == DescriptorUse.Control ? 20 : 2, descriptors);
            }
        }

        static int TakeAll(DescriptorBudget budget, DescriptorUse use)
        {
            while (budget.TryTake(use, 1))
            {
            }

            return budget.Taken(use);
        }
    }

    [Fact]
    public void Auto_listening_sockets_leave_most_of_a_small_limit_to_flows_and_half_of_theirs_to_explicit_ones()
    {
        DescriptorBudget budget = new(256), other = new(256);
        int auto = 0, flows = 0, leastFlows = 0;
        for (; budget.TryTake(DescriptorUse.ListeningAuto, 1); auto++)
            Assert.True(other.TryTake(DescriptorUse.ListeningAuto, 1));
        Assert.InRange(auto, 20, budget.Most(DescriptorUse.ListeningExplicit) / 2);
        while (other.TryTake(DescriptorUse.TcpFlow, 2))
            flows++;
        Assert.InRange(flows, 32, 128);
        while (budget.TryTake(DescriptorUse.ListeningExplicit, 1))
        {
        }

        Assert.Equal(budget.Most(DescriptorUse.ListeningExplicit), budget.Listening);
        while (budget.TryTake(DescriptorUse.TcpFlow, 2))
            leastFlows++;
        Assert.InRange(leastFlows, 6, flows);
    }

    [Fact]
    public void Half_of_a_small_limit_can_be_listening_sockets_of_ports_that_rules_name() =>
        Assert.Equal(128, new DescriptorBudget(256).Most(DescriptorUse.ListeningExplicit));

    [Fact]
    public void While_flows_have_all_that_they_may_have_more_ports_can_be_opened_however_many_there_are()
    {
        DescriptorBudget budget = new(401);
        for (int listening = 10; listening <= 60; listening += 10)
        {
            while (budget.TryTake(DescriptorUse.TcpFlow, 2))
            {
            }

            while (budget.Listening < listening)
                Assert.True(budget.TryTake(DescriptorUse.ListeningExplicit, 1));
            // As when some end.
            budget.Give(DescriptorUse.TcpFlow, 20);
        }
    }

    [Fact]
    public void With_twenty_thousand_nine_thousand_flows_fit()
    {
        DescriptorBudget budget = new(20_000);
        Assert.True(budget.TryTake(DescriptorUse.ListeningExplicit, 1));
        Assert.True(budget.TryTake(DescriptorUse.TcpFlow, 18_000));
    }

    [Fact]
    public void The_number_of_udp_flows_is_the_users_where_there_are_descriptors_for_them()
    {
        Assert.Equal(4, new DescriptorBudget(20_000, udpFlows: 4).Most(DescriptorUse.UdpFlow));
        Assert.InRange(new DescriptorBudget(200, udpFlows: 1000).Most(DescriptorUse.UdpFlow), 50, 150);
        Assert.InRange(new DescriptorBudget(20_000).Most(DescriptorUse.UdpFlow), 9_000, 10_000);
    }

    [Fact]
    public void What_was_not_taken_can_not_be_given_back()
    {
        DescriptorBudget budget = new(256);
        Assert.True(budget.TryTake(DescriptorUse.UdpFlow, 1));
        budget.Give(DescriptorUse.UdpFlow, 1);
        Assert.Throws<CheckFailedException>(() => budget.Give(DescriptorUse.UdpFlow, 1));
    }

    [Fact]
    public void Every_gift_shows()
    {
        DescriptorBudget budget = new(256);
        Assert.True(budget.TryTake(DescriptorUse.TcpFlow, 2));
        long before = budget.Gifts;
        budget.Give(DescriptorUse.TcpFlow, 2);
        Assert.NotEqual(before, budget.Gifts);
    }
}
