using System.Runtime.CompilerServices;
using Pesto.Linux;

namespace Pesto.Forwarder.Loop;

/// <summary>
/// A fixed number of native items, each known by a small index while it is taken, and by a key that no later item
/// shares: an event that was on its way when its item was given back is recognised as stale.
/// </summary>
public sealed unsafe class Slots<T>
    where T : unmanaged
{
    readonly NativeArray<T> _items;

    // Odd while the slot is taken.
    readonly NativeArray<uint> _generations;
    readonly NativeArray<int> _free;
    int _freeCount;

    public Slots(int capacity)
    {
        _items = new(capacity);
        _generations = new(capacity);
        _free = new(capacity);
    }

    public int Capacity => _items.Length;

    public int Count { get; private set; }

    /// <summary>One more than the highest index ever taken: what a walk over all items has to cover.</summary>
    public int High { get; private set; }

    public T* this[int index]
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get
        {
            Check.That((uint)index < (uint)High, "an index is one that has been taken");
            return _items.Pointer + index;
        }
    }

    public bool IsTaken(int index) => (_generations[index] & 1) != 0;

    public uint Generation(int index) => _generations[index];

    /// <summary>Takes a slot, its item zeroed; -1 if there is none left.</summary>
    public int Take()
    {
        int index;
        if (_freeCount > 0)
            index = _free[--_freeCount];
        else if (High < Capacity)
            index = High++;
        else
            return -1;
        _generations[index]++;
        Count++;
        _items[index] = default;
        return index;
    }

    public void Return(int index)
    {
        Check.That(IsTaken(index), "what is given back is taken");
        _generations[index]++;
        Count--;
        _free[_freeCount++] = index;
    }
}
