namespace Pesto.Forwarder.Loop;

/// <summary>Holds descriptors that it can do without.</summary>
public interface IGivesRoom
{
    /// <summary>Closes one or some of them; false if there are none.</summary>
    bool GiveRoom();
}

/// <summary>
/// What happens when descriptors are used up: the parts that hold some which they can do without are asked for them, in order. If there are
/// still none, connections are left in the kernel's queue, and it is tried again when <see cref="DescriptorBudget.Gifts"/> has changed, or after
/// <see cref="RetryMilliseconds"/>: EMFILE, ENFILE and ENOMEM have causes that are not counted here.
/// </summary>
public sealed class Backpressure
{
    public const long RetryMilliseconds = 100;

    readonly DescriptorBudget _budget;
    readonly IGivesRoom[] _givers;

    /// <param name="givers">Asked for room in this order: the first until it has no more, then the next.</param>
    public Backpressure(DescriptorBudget budget, params IGivesRoom[] givers)
    {
        _budget = budget;
        _givers = givers;
    }

    /// <summary>Sees to it that so many can be taken; false if that is not possible now.</summary>
    public bool HasRoom(DescriptorUse use, int count)
    {
        while (!_budget.CanTake(use, count))
        {
            if (!GiveRoom())
                return false;
        }

        return true;
    }

    bool GiveRoom()
    {
        foreach (IGivesRoom giver in _givers)
        {
            if (giver.GiveRoom())
                return true;
        }

        return false;
    }
}
