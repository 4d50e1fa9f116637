using Pesto.Linux;

namespace Pesto.Forwarder.Loop;

/// <summary>Does the work of items that are ready.</summary>
public interface IReady
{
    /// <summary>Gives an item its turn. If there is more to do after a fair share, it is added again.</summary>
    void OnReady(int index);
}

/// <summary>
/// Items that have something to do for which no event will come. In each iteration of the loop they have their turns, the one that has
/// waited longest first, until <see cref="TurnShare"/> is used: so events are never far away, however many items there are.
/// </summary>
public sealed class ReadyList
{
    /// <summary>How long turns are given in one iteration, in nanoseconds.</summary>
    const long TurnShare = 2_000_000;

    const int NotIn = 0;

    /// <summary>The neighbours of each item, plus 2, so that untouched memory means that an item is not in: 1 is no neighbour.</summary>
    readonly NativeArray<Place> _places;
    int _first = -1;
    int _last = -1;

    /// <param name="capacity">One more than the highest index of an item.</param>
    public ReadyList(int capacity) => _places = new(capacity);

    struct Place
    {
        public int Previous;
        public int Next;
    }

    public int Count { get; private set; }

    public bool Contains(int index) => _places[index].Next != NotIn;

    /// <summary>Adds an item at the end; one that is in stays where it is.</summary>
    public void Add(int index)
    {
        if (Contains(index))
            return;
        _places[index] = new() { Previous = _last + 2, Next = 1 };
        if (_last >= 0)
            _places[_last].Next = index + 2;
        else
            _first = index;
        _last = index;
        Count++;
    }

    /// <summary>Takes an item out, if it is in.</summary>
    public void Remove(int index)
    {
        if (!Contains(index))
            return;
        ref Place place = ref _places[index];
        int previous = place.Previous - 2, next = place.Next - 2;
        if (previous >= 0)
            _places[previous].Next = place.Next;
        else
            _first = next;
        if (next >= 0)
            _places[next].Previous = place.Previous;
        else
            _last = previous;
        place = default;
        Count--;
    }

    /// <summary>Takes the first item out; -1 if there is none.</summary>
    public int TakeFirst()
    {
        int index = _first;
        if (index >= 0)
            Remove(index);
        return index;
    }

    /// <summary>Gives as many turns as there are items now, or as many as there is time for.</summary>
    public void GiveTurns(IReady work)
    {
        if (Count == 0)
            return;
        long end = Clock.Nanoseconds + TurnShare;
        for (int left = Count; left > 0 && TakeFirst() is int index and >= 0; left--)
        {
            work.OnReady(index);
            if (Clock.Nanoseconds >= end)
                return;
        }
    }
}
