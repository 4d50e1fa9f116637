using Pesto.Linux;

namespace Pesto.Forwarder;

/// <summary>
/// Items that each wait for the same length of time, in the order in which their time comes: since all wait equally
/// long, who starts to wait last is last, and putting in, taking out and starting again cost the same whatever the number.
/// </summary>
public sealed class Waiting
{
    readonly NativeArray<Place> places;
    int first = -1;
    int last = -1;

    /// <param name="capacity">One more than the highest index of an item.</param>
    /// <param name="milliseconds">How long each waits; 0 for never ending.</param>
    public Waiting(int capacity, long milliseconds)
    {
        this.places = new(capacity);
        this.Duration = milliseconds;
    }

    public long Duration { get; }

    /// <summary>When the first item's time has come, or long.MaxValue.</summary>
    public long Deadline => this.first < 0 || this.Duration == 0 ? long.MaxValue : this.places[this.first].Start + this.Duration;

    /// <summary>The item that has waited longest, or -1.</summary>
    public int First => this.first;

    /// <summary>Puts an item in that is not, at the end.</summary>
    public void Start(int index, long now)
    {
        ref Place place = ref this.places[index];
        place.Start = now;
        place.Next = -1;
        place.Previous = this.last;
        if (this.last >= 0)
            this.places[this.last].Next = index;
        else
            this.first = index;
        this.last = index;
    }

    /// <summary>Takes an item out that is in.</summary>
    public void Stop(int index)
    {
        ref Place place = ref this.places[index];
        if (place.Previous >= 0)
            this.places[place.Previous].Next = place.Next;
        else
            this.first = place.Next;
        if (place.Next >= 0)
            this.places[place.Next].Previous = place.Previous;
        else
            this.last = place.Previous;
    }

    /// <summary>Has an item that is in begin again.</summary>
    public void Restart(int index, long now)
    {
        if (this.last == index)
        {
            this.places[index].Start = now;
            return;
        }

        this.Stop(index);
        this.Start(index, now);
    }

    struct Place
    {
        public long Start;
        public int Previous;
        public int Next;
    }
}
