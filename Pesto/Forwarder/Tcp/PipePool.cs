using Pesto.Forwarder.Loop;
using Pesto.Linux;

namespace Pesto.Forwarder.Tcp;

/// <summary>
/// Pipes to splice through. A flow has one only while it holds bytes of the flow: few are needed at a time, so they
/// are kept and handed round.
/// </summary>
public sealed unsafe class PipePool : IGivesRoom
{
    /// <summary>The capacity that is asked for, in bytes: fs.pipe-max-size by default. Beyond the user's limits (EPERM) a pipe stays as it is.</summary>
    public const int WantedSize = 1024 * 1024;

    const int MostIdle = 64;
    const int DescriptorsEach = 2;

    readonly Slots<Pipe> _slots;
    readonly NativeArray<int> _idle = new(MostIdle);
    readonly DescriptorBudget _budget;
    int _idleCount;

    public PipePool(DescriptorBudget budget)
    {
        _budget = budget;
        _slots = new(budget.Most(DescriptorUse.Pipe) / DescriptorsEach);
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
    public bool GiveRoom()
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
        _budget.Give(DescriptorUse.Pipe, DescriptorsEach);
        _slots.Return(index);
    }

    int Make()
    {
        if (!_budget.CanTake(DescriptorUse.Pipe, DescriptorsEach) || !Descriptors.Pipe(out int read, out int write).Ok)
            return -1;
        _ = _budget.TryTake(DescriptorUse.Pipe, DescriptorsEach);
        // The budget has no more of these than there are slots.
        int index = _slots.Take();
        Pipe* pipe = _slots[index];
        pipe->Read = read;
        pipe->Write = write;

        // EPERM: beyond fs.pipe-user-pages-soft. Then the pipe keeps its size.
        _ = Descriptors.ResizePipe(pipe->Write, WantedSize).Ok;
        Result size = Descriptors.PipeSize(pipe->Write);
        pipe->Size = size.Ok ? size.Value : 0;
        return index;
    }
}
