using Pesto.Forwarder.Loop;
using Pesto.Linux;

namespace Pesto.Forwarder.Udp;

/// <summary>
/// The UDP flows: found by their key, listed by the listening socket by which replies leave, and ordered by how long they
/// have been idle. Nothing here sends or receives.
/// </summary>
public sealed unsafe class UdpFlowTable
{
    readonly Slots<UdpFlow> _slots;
    readonly NativeArray<int> _buckets;
    readonly NativeArray<int> _ofListener;
    readonly int _mask;
    readonly TimeoutList _unreplied;
    readonly TimeoutList _replied;

    /// <param name="capacity">The most flows at a time.</param>
    /// <param name="listeners">The most listening sockets at a time.</param>
    /// <param name="unreplied">Milliseconds that a flow may be idle until its target has sent something; 0: for ever.</param>
    /// <param name="replied">Milliseconds that a flow may be idle from then on; 0: for ever.</param>
    public UdpFlowTable(int capacity, int listeners, long unreplied, long replied)
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
        _unreplied = new(capacity, unreplied);
        _replied = new(capacity, replied);
    }

    public UdpFlow* this[int index] => _slots[index];

    public int Count => _slots.Count;

    public int Capacity => _slots.Capacity;

    public uint Generation(int index) => _slots.Generation(index);

    /// <summary>The flow with this key, or -1.</summary>
    public int Find(in UdpFlowKey key)
    {
        int index = _buckets[key.GetHashCode() & _mask];
        while (index >= 0 && _slots[index]->Key != key)
            index = _slots[index]->NextInBucket;
        return index;
    }

    /// <summary>Adds a flow that is not there; -1 if the table is full.</summary>
    public int Add(in UdpFlowKey key, in SocketAddress target, int fd, int listener, long now)
    {
        int index = _slots.Take();
        if (index < 0)
            return -1;
        UdpFlow* flow = _slots[index];
        flow->Key = key;
        flow->Client = key.ClientAddress;
        flow->Target = target;
        flow->Fd = fd;
        flow->Moved = now;
        ref int bucket = ref _buckets[key.GetHashCode() & _mask];
        flow->NextInBucket = bucket;
        bucket = index;
        Join(index, listener);
        _unreplied.Start(index, now);
        return index;
    }

    public void Remove(int index)
    {
        UdpFlow* flow = _slots[index];
        int* link = _buckets.Pointer + (flow->Key.GetHashCode() & _mask);
        while (*link != index)
            link = &_slots[*link]->NextInBucket;
        *link = flow->NextInBucket;
        Leave(index);
        Idle(flow).Stop(index);
        _slots.Return(index);
    }

    /// <summary>The first flow whose replies leave by this listening socket, or -1; go on with <see cref="UdpFlow.Next"/>.</summary>
    public int FirstOf(int listener) => _ofListener[listener];

    /// <summary>Replies leave by another listening socket from now on.</summary>
    public void Move(int index, int listener)
    {
        Leave(index);
        Join(index, listener);
    }

    void Join(int index, int listener)
    {
        UdpFlow* flow = _slots[index];
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
        UdpFlow* flow = _slots[index];
        if (flow->Previous >= 0)
            _slots[flow->Previous]->Next = flow->Next;
        else
            _ofListener[flow->Listener] = flow->Next;
        if (flow->Next >= 0)
            _slots[flow->Next]->Previous = flow->Previous;
    }

    TimeoutList Idle(UdpFlow* flow) => flow->IsReplied ? _replied : _unreplied;

    /// <summary>Something came from the client.</summary>
    public void Requested(int index, long now)
    {
        UdpFlow* flow = _slots[index];
        if (flow->Moved == now)
            return;
        flow->Moved = now;
        Idle(flow).Restart(index, now);
    }

    /// <summary>Something came from the target.</summary>
    public void Replied(int index, long now)
    {
        UdpFlow* flow = _slots[index];
        if (flow->IsReplied)
        {
            Requested(index, now);
            return;
        }

        _unreplied.Stop(index);
        _replied.Start(index, now);
        flow->IsReplied = true;
        flow->Moved = now;
    }

    /// <summary>When the next flow's time is over, or long.MaxValue.</summary>
    public long Deadline => Math.Min(_unreplied.Deadline, _replied.Deadline);

    /// <summary>A flow whose time is over, or -1.</summary>
    public int Expired(long now) =>
        _unreplied.Deadline <= now ? _unreplied.First : _replied.Deadline <= now ? _replied.First : -1;

    /// <summary>The flow that has been idle longest, or -1.</summary>
    public int Oldest
    {
        get
        {
            int one = _unreplied.First, other = _replied.First;
            if (one < 0 || other < 0)
                return Math.Max(one, other);
            return _slots[one]->Moved <= _slots[other]->Moved ? one : other;
        }
    }
}
