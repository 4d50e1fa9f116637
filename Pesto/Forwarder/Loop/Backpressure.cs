namespace Pesto.Forwarder.Loop;

/// <summary>Holds descriptors that it can do without.</summary>
public interface IGivesRoom
{
    /// <summary>Closes one or some of them; false if there are none.</summary>
    bool GiveRoom();
}

/// <summary>
/// What happens when descriptors are used up: those who hold some that they can do without are asked for them, in order. Who still gets
/// none leaves what comes in the kernel's queue, and tries again when <see cref="DescriptorBudget.Gifts"/> has changed, or after
/// <see cref="RetryMilliseconds"/>, since the system may have run out of what is counted nowhere here.
/// </summary>
public sealed class Backpressure
{
    public const long RetryMilliseconds = 100;

    readonly DescriptorBudget _budget;
    readonly IGivesRoom[] _givers;

    /// <param name="givers">Who is asked for room, the first until it has no more, then the next.</param>
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
