using Pesto.Linux;

namespace Pesto.Forwarder;

/// <summary>
/// Pipes to splice through. A flow has one only while it holds bytes of the flow: few are needed at a time, so they
/// are kept and handed round.
/// </summary>
public sealed unsafe class Pipes
{
    /// <summary>A pipe's capacity in bytes as asked for; who may not have that much gets what the kernel gives.</summary>
    public const int WantedSize = 1024 * 1024;

    const int MostIdle = 64;

    readonly Slots<Pipe> slots;
    readonly NativeArray<int> idle = new(MostIdle);
    int idleCount;

    readonly int descriptors;

    /// <param name="descriptors">How many may be open, of whatever kind: beyond that no pipe is made, since flows can do without.</param>
    public Pipes(int capacity, int descriptors)
    {
        this.slots = new(capacity);
        this.descriptors = descriptors;
    }

    public struct Pipe
    {
        public int Read;
        public int Write;
        public int Size;
    }

    public Pipe* this[int index] => this.slots[index];

    /// <summary>Pipes that exist, in use or idle: two descriptors each.</summary>
    public int Count => this.slots.Count;

    /// <summary>Whether the next <see cref="Take"/> will succeed with a pipe of at least this size.</summary>
    public bool EnsureSpare(int size)
    {
        if (this.idleCount > 0)
            return this.slots[this.idle[this.idleCount - 1]]->Size >= size;
        int made = this.Make();
        if (made < 0)
            return false;
        this.idle[this.idleCount++] = made;
        return this.slots[made]->Size >= size;
    }

    /// <summary>An empty pipe, or -1 if none is to be had.</summary>
    public int Take() => this.idleCount > 0 ? this.idle[--this.idleCount] : this.Make();

    /// <summary>Takes back a pipe that is empty.</summary>
    public void Return(int index)
    {
        if (this.idleCount < MostIdle)
            this.idle[this.idleCount++] = index;
        else
            this.Discard(index);
    }

    /// <summary>Closes a pipe that is kept at hand; false if there is none.</summary>
    public bool DiscardIdle()
    {
        if (this.idleCount == 0)
            return false;
        this.Discard(this.idle[--this.idleCount]);
        return true;
    }

    /// <summary>Closes a pipe, with what it holds.</summary>
    public void Discard(int index)
    {
        Pipe* pipe = this.slots[index];
        Descriptors.Close(pipe->Read);
        Descriptors.Close(pipe->Write);
        this.slots.Return(index);
    }

    int Make()
    {
        int index = this.slots.Take();
        if (index < 0)
            return -1;
        Pipe* pipe = this.slots[index];
        if (!Descriptors.Pipe(out pipe->Read, out pipe->Write).Ok)
        {
            this.slots.Return(index);
            return -1;
        }

        // The lowest free number is given out, so the number tells how many are open.
        if (pipe->Write >= this.descriptors)
        {
            this.Discard(index);
            return -1;
        }

        // An ordinary user over his share is refused: then the size stays what the kernel gave.
        _ = Descriptors.ResizePipe(pipe->Write, WantedSize).Ok;
        Result size = Descriptors.PipeSize(pipe->Write);
        pipe->Size = size.Ok ? size.Value : 0;
        return index;
    }
}
