using System.Runtime.CompilerServices;
using Pesto.Linux;

namespace Pesto.Forwarder;

/// <summary>
/// A fixed number of native items, each known by a small index while it is taken, and by a key that no later item
/// shares: an event that was on its way when its item was given back is recognised as stale.
/// </summary>
public sealed unsafe class Slots<T>
    where T : unmanaged
{
    readonly NativeArray<T> items;

    // Odd while the slot is taken.
    readonly NativeArray<uint> generations;
    readonly NativeArray<int> free;
    int freeCount;

    public Slots(int capacity)
    {
        this.items = new(capacity);
        this.generations = new(capacity);
        this.free = new(capacity);
    }

    public int Capacity => this.items.Length;

    public int Count { get; private set; }

    /// <summary>One more than the highest index ever taken: what a walk over all items has to cover.</summary>
    public int High { get; private set; }

    public T* this[int index]
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => this.items.Pointer + index;
    }

    public bool IsTaken(int index) => (this.generations[index] & 1) != 0;

    public uint Generation(int index) => this.generations[index];

    /// <summary>Takes a slot, its item zeroed; -1 if there is none left.</summary>
    public int Take()
    {
        int index;
        if (this.freeCount > 0)
            index = this.free[--this.freeCount];
        else if (this.High < this.Capacity)
            index = this.High++;
        else
            return -1;
        this.generations[index]++;
        this.Count++;
        this.items[index] = default;
        return index;
    }

    public void Return(int index)
    {
        this.generations[index]++;
        this.Count--;
        this.free[this.freeCount++] = index;
    }
}
