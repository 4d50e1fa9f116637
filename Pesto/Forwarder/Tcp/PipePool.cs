using Pesto.Forwarder.Loop;
using Pesto.Linux;

namespace Pesto.Forwarder.Tcp;

/// <summary>
/// Pipes to splice through. A flow has one only while it holds bytes of the flow: few are needed at a time, so they
/// are kept and handed round.
/// </summary>
public sealed unsafe class PipePool
{
    /// <summary>A pipe's capacity in bytes as asked for; who may not have that much gets what the kernel gives.</summary>
    public const int WantedSize = 1024 * 1024;

    const int MostIdle = 64;

    readonly Slots<Pipe> _slots;
    readonly NativeArray<int> _idle = new(MostIdle);
    int _idleCount;

    readonly int _descriptors;

    /// <param name="descriptors">How many may be open, of whatever kind: beyond that no pipe is made, since flows can do without.</param>
    public PipePool(int capacity, int descriptors)
    {
        _slots = new(capacity);
        _descriptors = descriptors;
    }

    public struct Pipe
    {
        public int Read;
        public int Write;
        public int Size;
    }

    public Pipe* this[int index] => _slots[index];

    /// <summary>Pipes that exist, in use or idle: two descriptors each.</summary>
    public int Count => _slots.Count;

    /// <summary>Whether the next <see cref="Take"/> will succeed with a pipe of at least this size.</summary>
    public bool EnsureSpare(int size)
    {
        if (_idleCount > 0)
            return _slots[_idle[_idleCount - 1]]->Size >= size;
        int made = Make();
        if (made < 0)
            return false;
        _idle[_idleCount++] = made;
        return _slots[made]->Size >= size;
    }

    /// <summary>An empty pipe, or -1 if none is to be had.</summary>
    public int Take() => _idleCount > 0 ? _idle[--_idleCount] : Make();

    /// <summary>Takes back a pipe that is empty.</summary>
    public void Return(int index)
    {
        if (_idleCount < MostIdle)
            _idle[_idleCount++] = index;
        else
            Discard(index);
    }

    /// <summary>Closes a pipe that is kept at hand; false if there is none.</summary>
    public bool DiscardIdle()
    {
        if (_idleCount == 0)
            return false;
        Discard(_idle[--_idleCount]);
        return true;
    }

    /// <summary>Closes a pipe, with what it holds.</summary>
    public void Discard(int index)
    {
        Pipe* pipe = _slots[index];
        Descriptors.Close(pipe->Read);
        Descriptors.Close(pipe->Write);
        _slots.Return(index);
    }

    int Make()
    {
        int index = _slots.Take();
        if (index < 0)
            return -1;
        Pipe* pipe = _slots[index];
        if (!Descriptors.Pipe(out pipe->Read, out pipe->Write).Ok)
        {
            _slots.Return(index);
            return -1;
        }

        // The lowest free number is given out, so the number tells how many are open.
        if (pipe->Write >= _descriptors)
        {
            Discard(index);
            return -1;
        }

        // An ordinary user over his share is refused: then the size stays what the kernel gave.
        _ = Descriptors.ResizePipe(pipe->Write, WantedSize).Ok;
        Result size = Descriptors.PipeSize(pipe->Write);
        pipe->Size = size.Ok ? size.Value : 0;
        return index;
    }
}
