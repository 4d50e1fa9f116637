using Pesto.Forwarder.Loop;
using Pesto.Linux;

namespace Pesto.Forwarder.Udp;

/// <summary>
/// The UDP flows: found by their key, listed by the listening socket that answers their client, and known by how long they
/// have been idle. Nothing here sends or receives.
/// </summary>
public sealed unsafe class FlowTable
{
    readonly Slots<Flow> _slots;
    readonly NativeArray<int> _buckets;
    readonly NativeArray<int> _ofListener;
    readonly int _mask;
    readonly TimeoutList _unanswered;
    readonly TimeoutList _answered;

    /// <param name="capacity">The most flows at a time.</param>
    /// <param name="listeners">The most listening sockets at a time.</param>
    /// <param name="unanswered">Milliseconds that a flow may be idle until its target has sent something; 0: for ever.</param>
    /// <param name="answered">Milliseconds that a flow may be idle from then on; 0: for ever.</param>
    public FlowTable(int capacity, int listeners, long unanswered, long answered)
    {
        _slots = new(capacity);
        int size = 1;
        while (size < capacity * 2)
            size *= 2;
        _mask = size - 1;
        _buckets = new(size);
        _buckets.Span.Fill(-1);
        _ofListener = new(listeners);
        _ofListener.Span.Fill(-1);
        _unanswered = new(capacity, unanswered);
        _answered = new(capacity, answered);
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

    public Flow* this[int index] => _slots[index];

    public int Count => _slots.Count;

    public int Capacity => _slots.Capacity;

    public uint Generation(int index) => _slots.Generation(index);

    /// <summary>The flow with this key, or -1.</summary>
    public int Find(in FlowKey key)
    {
        int index = _buckets[key.GetHashCode() & _mask];
        while (index >= 0 && _slots[index]->Key != key)
            index = _slots[index]->NextInBucket;
        return index;
    }

    /// <summary>Adds a flow that is not there; -1 if the table is full.</summary>
    public int Add(in FlowKey key, in SocketAddress target, int fd, int listener, long now)
    {
        int index = _slots.Take();
        if (index < 0)
            return -1;
        Flow* flow = _slots[index];
        flow->Key = key;
        flow->Client = key.ClientAddress;
        flow->Target = target;
        flow->Fd = fd;
        flow->Moved = now;
        ref int bucket = ref _buckets[key.GetHashCode() & _mask];
        flow->NextInBucket = bucket;
        bucket = index;
        Join(index, listener);
        _unanswered.Start(index, now);
        return index;
    }

    public void Remove(int index)
    {
        Flow* flow = _slots[index];
        int* link = _buckets.Pointer + (flow->Key.GetHashCode() & _mask);
        while (*link != index)
            link = &_slots[*link]->NextInBucket;
        *link = flow->NextInBucket;
        Leave(index);
        (flow->Answered ? _answered : _unanswered).Stop(index);
        _slots.Return(index);
    }

    /// <summary>The first flow whose answers leave by this listening socket, or -1; go on with <see cref="Flow.Next"/>.</summary>
    public int FirstOf(int listener) => _ofListener[listener];

    /// <summary>Answers leave by another listening socket from now on.</summary>
    public void Move(int index, int listener)
    {
        Leave(index);
        Join(index, listener);
    }

    void Join(int index, int listener)
    {
        Flow* flow = _slots[index];
        ref int first = ref _ofListener[listener];
        flow->Listener = listener;
        flow->Previous = -1;
        flow->Next = first;
        if (first >= 0)
            _slots[first]->Previous = index;
        first = index;
    }

    void Leave(int index)
    {
        Flow* flow = _slots[index];
        if (flow->Previous >= 0)
            _slots[flow->Previous]->Next = flow->Next;
        else
            _ofListener[flow->Listener] = flow->Next;
        if (flow->Next >= 0)
            _slots[flow->Next]->Previous = flow->Previous;
    }

    /// <summary>Something came from the client.</summary>
    public void Asked(int index, long now)
    {
        Flow* flow = _slots[index];
        if (flow->Moved == now)
            return;
        flow->Moved = now;
        (flow->Answered ? _answered : _unanswered).Restart(index, now);
    }

    /// <summary>Something came from the target.</summary>
    public void Replied(int index, long now)
    {
        Flow* flow = _slots[index];
        if (flow->Answered)
        {
            Asked(index, now);
            return;
        }

        _unanswered.Stop(index);
        _answered.Start(index, now);
        flow->Answered = true;
        flow->Moved = now;
    }

    /// <summary>When the next flow's time is over, or long.MaxValue.</summary>
    public long Deadline => Math.Min(_unanswered.Deadline, _answered.Deadline);

    /// <summary>A flow whose time is over, or -1.</summary>
    public int Expired(long now) =>
        _unanswered.Deadline <= now ? _unanswered.First : _answered.Deadline <= now ? _answered.First : -1;

    /// <summary>The flow that has been idle longest, or -1.</summary>
    public int Oldest
    {
        get
        {
            int one = _unanswered.First, other = _answered.First;
            if (one < 0 || other < 0)
                return Math.Max(one, other);
            return _slots[one]->Moved <= _slots[other]->Moved ? one : other;
        }
    }
}
