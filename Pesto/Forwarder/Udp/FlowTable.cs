using Pesto.Linux;

namespace Pesto.Forwarder;

/// <summary>
/// The UDP flows: found by their key, listed by the listening socket that answers their client, and known by how long they
/// have been idle. Nothing here sends or receives.
/// </summary>
public sealed unsafe class FlowTable
{
    readonly Slots<Flow> slots;
    readonly NativeArray<int> buckets;
    readonly NativeArray<int> ofListener;
    readonly int mask;
    readonly Waiting unanswered;
    readonly Waiting answered;

    /// <param name="capacity">The most flows at a time.</param>
    /// <param name="listeners">The most listening sockets at a time.</param>
    /// <param name="unanswered">Milliseconds that a flow may be idle until its target has sent something; 0: for ever.</param>
    /// <param name="answered">Milliseconds that a flow may be idle from then on; 0: for ever.</param>
    public FlowTable(int capacity, int listeners, long unanswered, long answered)
    {
        this.slots = new(capacity);
        int size = 1;
        while (size < capacity * 2)
            size *= 2;
        this.mask = size - 1;
        this.buckets = new(size);
        this.buckets.Span.Fill(-1);
        this.ofListener = new(listeners);
        this.ofListener.Span.Fill(-1);
        this.unanswered = new(capacity, unanswered);
        this.answered = new(capacity, answered);
    }

    /// <summary>One client's conversation.</summary>
    public struct Flow
    {
        public FlowKey Key;

        /// <summary>The client as the kernel wants it named, when something is sent to it.</summary>
        public SocketAddress Client;

        public SocketAddress Target;

        /// <summary>The socket in the target's namespace, connected to the target: whatever comes to it is for the client.</summary>
        public int Fd;

        /// <summary>The listening socket by which answers leave.</summary>
        public int Listener;

        /// <summary>The target has sent something.</summary>
        public bool Answered;

        /// <summary>The path to the target takes no rows of datagrams.</summary>
        public bool SingleIn;

        /// <summary>The path to the client takes no rows of datagrams.</summary>
        public bool SingleOut;

        /// <summary>It is in the list of those that had more to move than was fair.</summary>
        public bool IsReady;

        /// <summary>When something moved last, in milliseconds of the loop's clock.</summary>
        public long Moved;

        /// <summary>The next in the same bucket, or -1.</summary>
        public int NextInBucket;

        // Its neighbours among those of the same listening socket, or -1.
        public int Next;
        public int Previous;
    }

    public Flow* this[int index] => this.slots[index];

    public int Count => this.slots.Count;

    public int Capacity => this.slots.Capacity;

    public uint Generation(int index) => this.slots.Generation(index);

    /// <summary>The flow with this key, or -1.</summary>
    public int Find(in FlowKey key)
    {
        int index = this.buckets[key.GetHashCode() & this.mask];
        while (index >= 0 && this.slots[index]->Key != key)
            index = this.slots[index]->NextInBucket;
        return index;
    }

    /// <summary>Adds a flow that is not there; -1 if the table is full.</summary>
    public int Add(in FlowKey key, in SocketAddress target, int fd, int listener, long now)
    {
        int index = this.slots.Take();
        if (index < 0)
            return -1;
        Flow* flow = this.slots[index];
        flow->Key = key;
        flow->Client = key.ClientAddress;
        flow->Target = target;
        flow->Fd = fd;
        flow->Moved = now;
        ref int bucket = ref this.buckets[key.GetHashCode() & this.mask];
        flow->NextInBucket = bucket;
        bucket = index;
        this.Join(index, listener);
        this.unanswered.Start(index, now);
        return index;
    }

    public void Remove(int index)
    {
        Flow* flow = this.slots[index];
        int* link = this.buckets.Pointer + (flow->Key.GetHashCode() & this.mask);
        while (*link != index)
            link = &this.slots[*link]->NextInBucket;
        *link = flow->NextInBucket;
        this.Leave(index);
        (flow->Answered ? this.answered : this.unanswered).Stop(index);
        this.slots.Return(index);
    }

    /// <summary>The first flow whose answers leave by this listening socket, or -1; go on with <see cref="Flow.Next"/>.</summary>
    public int FirstOf(int listener) => this.ofListener[listener];

    /// <summary>Answers leave by another listening socket from now on.</summary>
    public void Move(int index, int listener)
    {
        this.Leave(index);
        this.Join(index, listener);
    }

    void Join(int index, int listener)
    {
        Flow* flow = this.slots[index];
        ref int first = ref this.ofListener[listener];
        flow->Listener = listener;
        flow->Previous = -1;
        flow->Next = first;
        if (first >= 0)
            this.slots[first]->Previous = index;
        first = index;
    }

    void Leave(int index)
    {
        Flow* flow = this.slots[index];
        if (flow->Previous >= 0)
            this.slots[flow->Previous]->Next = flow->Next;
        else
            this.ofListener[flow->Listener] = flow->Next;
        if (flow->Next >= 0)
            this.slots[flow->Next]->Previous = flow->Previous;
    }

    /// <summary>Something came from the client.</summary>
    public void Asked(int index, long now)
    {
        Flow* flow = this.slots[index];
        if (flow->Moved == now)
            return;
        flow->Moved = now;
        (flow->Answered ? this.answered : this.unanswered).Restart(index, now);
    }

    /// <summary>Something came from the target.</summary>
    public void Replied(int index, long now)
    {
        Flow* flow = this.slots[index];
        if (flow->Answered)
        {
            this.Asked(index, now);
            return;
        }

        this.unanswered.Stop(index);
        this.answered.Start(index, now);
        flow->Answered = true;
        flow->Moved = now;
    }

    /// <summary>When the next flow's time is over, or long.MaxValue.</summary>
    public long Deadline => Math.Min(this.unanswered.Deadline, this.answered.Deadline);

    /// <summary>A flow whose time is over, or -1.</summary>
    public int Expired(long now) =>
        this.unanswered.Deadline <= now ? this.unanswered.First : this.answered.Deadline <= now ? this.answered.First : -1;

    /// <summary>The flow that has been idle longest, or -1.</summary>
    public int Oldest
    {
        get
        {
            int one = this.unanswered.First, other = this.answered.First;
            if (one < 0 || other < 0)
                return Math.Max(one, other);
            return this.slots[one]->Moved <= this.slots[other]->Moved ? one : other;
        }
    }
}
