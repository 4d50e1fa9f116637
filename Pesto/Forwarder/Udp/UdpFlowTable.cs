using Pesto.Forwarder.Loop;
using Pesto.Linux;

namespace Pesto.Forwarder.Udp;

/// <summary>
/// The UDP flows: found by their key, listed by the listening socket by which replies leave, and ordered by how long they
/// have been idle. Nothing here sends or receives.
/// </summary>
public sealed unsafe class UdpFlowTable
{
    /// <summary>One in so many flows may be without a reply before such flows make room for each other.</summary>
    const int UnrepliedShare = 4;

    readonly Slots<UdpFlow> _slots;
    readonly NativeArray<int> _buckets;
    readonly NativeArray<int> _ofListener;
    readonly int _mask;

    // By stage; in each, the flow that has been idle longest is first.
    readonly TimeoutList[] _idle;
    int _unreplied;

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
        _idle = [new(capacity, unreplied), new(capacity, replied), new(capacity, replied)];
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
    public int Add(in UdpFlowKey key, in SocketAddress target, in UdpTargetSocket socket, int listener, long now)
    {
        int index = _slots.Take();
        if (index < 0)
            return -1;
        UdpFlow* flow = _slots[index];
        flow->Key = key;
        flow->Client = key.ClientAddress;
        flow->Target = target;
        flow->Socket = socket;
        flow->Moved = now;
        ref int bucket = ref _buckets[key.GetHashCode() & _mask];
        flow->NextInBucket = bucket;
        bucket = index;
        Join(index, listener);
        Idle(UdpFlowStage.Requested).Start(index, now);
        _unreplied++;
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
        Idle(flow->Stage).Stop(index);
        if (flow->Stage == UdpFlowStage.Requested)
            _unreplied--;
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

    TimeoutList Idle(UdpFlowStage stage) => _idle[(int)stage];

    /// <summary>Something came from the client.</summary>
    public void Requested(int index, long now)
    {
        if (_slots[index]->Stage == UdpFlowStage.Replied)
            Advance(index, UdpFlowStage.Conversing, now);
        else
            Touch(index, now);
    }

    /// <summary>Something came from the target.</summary>
    public void Replied(int index, long now)
    {
        if (_slots[index]->Stage != UdpFlowStage.Requested)
        {
            Touch(index, now);
            return;
        }

        Advance(index, UdpFlowStage.Replied, now);
        _unreplied--;
    }

    void Touch(int index, long now)
    {
        UdpFlow* flow = _slots[index];
        if (flow->Moved == now)
            return;
        flow->Moved = now;
        Idle(flow->Stage).Restart(index, now);
    }

    void Advance(int index, UdpFlowStage stage, long now)
    {
        UdpFlow* flow = _slots[index];
        Idle(flow->Stage).Stop(index);
        Idle(stage).Start(index, now);
        flow->Stage = stage;
        flow->Moved = now;
    }

    /// <summary>When the next flow's time is over, or long.MaxValue.</summary>
    public long Deadline
    {
        get
        {
            long first = long.MaxValue;
            foreach (TimeoutList idle in _idle)
                first = Math.Min(first, idle.Deadline);
            return first;
        }
    }

    /// <summary>A flow whose time is over, or -1.</summary>
    public int Expired(long now)
    {
        foreach (TimeoutList idle in _idle)
        {
            if (idle.Deadline <= now)
                return idle.First;
        }

        return -1;
    }

    /// <summary>
    /// The flow to end when there are too many, or -1. Flows without a reply end first where they are more than their share, so that a flood
    /// of requests ends its own flows; up to their share they stay, so that clients that come at once do not end each other before
    /// they get their reply. In a stage, the one that has been idle longest ends.
    /// </summary>
    public int FirstToGo()
    {
        int unreplied = Idle(UdpFlowStage.Requested).First, replied = Idle(UdpFlowStage.Replied).First;
        if (unreplied >= 0 && (replied < 0 || _unreplied >= Count / UnrepliedShare))
            return unreplied;
        return replied >= 0 ? replied : Idle(UdpFlowStage.Conversing).First;
    }

    /// <summary>One that has been idle since a time, in milliseconds of the loop's clock, or -1; of the earliest stage first.</summary>
    public int IdleSince(long time)
    {
        foreach (TimeoutList idle in _idle)
        {
            if (idle.First >= 0 && _slots[idle.First]->Moved <= time)
                return idle.First;
        }

        return -1;
    }
}
