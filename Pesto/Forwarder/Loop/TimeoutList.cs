using Pesto.Linux;

namespace Pesto.Forwarder.Loop;

/// <summary>
/// Items with one time-out for all, in the order in which it comes: the one that was started last is last. Starting, stopping and restarting
/// an item costs the same whatever their number.
/// </summary>
public sealed class TimeoutList
{
    readonly NativeArray<Place> _places;
    int _first = -1;
    int _last = -1;

    /// <param name="capacity">One more than the highest index of an item.</param>
    /// <param name="milliseconds">How long each waits; 0 for never ending.</param>
    public TimeoutList(int capacity, long milliseconds)
    {
        _places = new(capacity);
        Duration = milliseconds;
    }

    public long Duration { get; }

    /// <summary>When the first item's time has come, or long.MaxValue.</summary>
    public long Deadline => _first < 0 || Duration == 0 ? long.MaxValue : _places[_first].Start + Duration;

    /// <summary>The item that has waited longest, or -1.</summary>
    public int First => _first;

    /// <summary>Puts an item in that is not, at the end.</summary>
    public void Start(int index, long now)
    {
        Check.That(!IsIn(index), "what is put in is not in");
        ref Place place = ref _places[index];
        place.Start = now;
        place.Next = -1;
        place.Previous = _last;
        if (_last >= 0)
            _places[_last].Next = index;
        else
            _first = index;
        _last = index;
    }

    /// <summary>Takes an item out that is in.</summary>
    public void Stop(int index)
    {
        Check.That(IsIn(index), "what is taken out is in");
        ref Place place = ref _places[index];
        if (place.Previous >= 0)
            _places[place.Previous].Next = place.Next;
        else
            _first = place.Next;
        if (place.Next >= 0)
            _places[place.Next].Previous = place.Previous;
        else
            _last = place.Previous;
    }

    /// <summary>Has an item that is in begin again.</summary>
    public void Restart(int index, long now)
    {
        Check.That(IsIn(index), "what begins again is in");
        if (_last == index)
        {
            _places[index].Start = now;
            return;
        }

        Stop(index);
        Start(index, now);
    }

    /// <summary>Whether an item is in: what it follows then says the same. Of an item that was never in, all is 0.</summary>
    bool IsIn(int index)
    {
        int previous = _places[index].Previous;
        return _first == index || (previous >= 0 && previous != index && _places[previous].Next == index);
    }

    struct Place
    {
        public long Start;
        public int Previous;
        public int Next;
    }
}
