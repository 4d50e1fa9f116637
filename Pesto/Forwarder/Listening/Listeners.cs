using Pesto.Forwarder.Loop;
using Pesto.Forwarder.Namespace;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Listening;

/// <summary>
/// The listening sockets, found by what they listen on. Each has the number of the rule that wants it in either set of tables, so that
/// making the other set the active one changes what all of them do in one step.
/// </summary>
public sealed unsafe class Listeners
{
    readonly DescriptorBudget _budget;
    readonly Slots<Listener> _slots;
    readonly NativeArray<int> _buckets;
    readonly int _mask;

    public Listeners(DescriptorBudget budget)
    {
        _budget = budget;
        int capacity = budget.Most(DescriptorUse.ListeningExplicit);
        _slots = new(capacity);
        int size = 1;
        while (size < capacity * 2)
            size *= 2;
        _mask = size - 1;
        _buckets = new(size);
        _buckets.Span.Fill(-1);
    }

    public struct Listener
    {
        public ListenAddress Local;
        public int Fd;
        public byte Pif;

        /// <summary>Events of the socket are asked for.</summary>
        public bool Armed;

        /// <summary>No new connection comes to the socket any more: it is about to be closed.</summary>
        public bool Quiesced;

        /// <summary>It is quiesced by a hop limit, which connections accepted from it inherit.</summary>
        public bool QuiescedByHops;

        /// <summary>What its descriptor is counted as.</summary>
        public DescriptorUse Use;

        /// <summary>Connections accepted from it that are open.</summary>
        public int Flows;

        /// <summary>It waits, unwatched, until there is room for what comes to it.</summary>
        public bool Paused;

        /// <summary>Until when what waits on it gets time to be served once it is quiesced, in milliseconds of the loop's clock.</summary>
        public long ServedUntil;

        /// <summary>As in <see cref="ListenRequest"/>.</summary>
        public uint InterfaceIndex;
        public CongestionControl FromElsewhere;

        /// <summary>The rule that wants it, in each set of tables; -1 for none.</summary>
        public fixed short Rule[2];

        /// <summary>It shared its port, while one of them was bound, with another socket of ours that overlaps it, and the kernel remembers.</summary>
        public bool Handover;

        /// <summary>The last scan that found a service behind it.</summary>
        public uint Seen;

        /// <summary>The next one in its bucket, or -1.</summary>
        public int Next;
    }

    public Listener* this[int index] => _slots[index];

    public int Count => _slots.Count;

    public int Capacity => _slots.Capacity;

    /// <summary>One more than the highest index in use.</summary>
    public int High => _slots.High;

    public bool Exists(int index) => _slots.IsTaken(index);

    public uint Generation(int index) => _slots.Generation(index);

    /// <summary>The first socket of this pif, protocol and port, whatever its address; go on with <see cref="NextOnPort"/>.</summary>
    public int FirstOnPort(int pif, IpProtocol protocol, ushort port) => Matching(_buckets[Bucket(pif, protocol, port)], pif, protocol, port);

    public int NextOnPort(int index)
    {
        Listener* listener = _slots[index];
        return Matching(listener->Next, listener->Pif, listener->Local.Protocol, listener->Local.Port);
    }

    int Matching(int index, int pif, IpProtocol protocol, ushort port)
    {
        while (index >= 0)
        {
            Listener* listener = _slots[index];
            if (listener->Local.Port == port && listener->Local.Protocol == protocol && listener->Pif == pif)
                return index;
            index = listener->Next;
        }

        return -1;
    }

    /// <summary>The socket that listens on just this, and to which something can come; or -1.</summary>
    public int Find(int pif, in ListenAddress local)
    {
        int index = FirstOnPort(pif, local.Protocol, local.Port);
        while (index >= 0)
        {
            Listener* listener = _slots[index];
            if (listener->Local == local && !listener->Quiesced && HasInterface(index))
                return index;
            index = NextOnPort(index);
        }

        return -1;
    }

    /// <summary>
    /// Whether the interface to which a socket is bound is still there. The socket knows it by its index: to one whose interface was
    /// deleted, nothing comes any more, though there may be another of the same name.
    /// </summary>
    public bool HasInterface(int index)
    {
        Listener* listener = _slots[index];
        return listener->InterfaceIndex == 0 || Sockets.InterfaceIndex(listener->Fd, listener->Local.Interface.Bytes) == listener->InterfaceIndex;
    }

    /// <summary>Takes in an open socket, wanted by no rule yet; -1 if there is no place left.</summary>
    public int Add(int pif, in ListenRequest order, DescriptorUse use)
    {
        if (!_budget.TryTake(use, 1))
            return -1;
        // The budget has no more of these than there are slots.
        int index = _slots.Take();
        Listener* listener = _slots[index];
        listener->Local = order.Local;
        listener->Fd = order.Outcome.Value;
        listener->Use = use;
        listener->Pif = (byte)pif;
        listener->Rule[0] = listener->Rule[1] = -1;
        listener->Handover = order.Handover;
        listener->InterfaceIndex = order.InterfaceIndex;
        listener->FromElsewhere = order.FromElsewhere;
        int bucket = Bucket(pif, order.Local.Protocol, order.Local.Port);
        listener->Next = _buckets[bucket];
        _buckets[bucket] = index;
        return index;
    }

    /// <summary>Puts another socket, bound to the same, in the place of one that is closed; not watched yet.</summary>
    public void Replace(int index, in ListenRequest opened)
    {
        Listener* listener = _slots[index];
        Descriptors.Close(listener->Fd);
        listener->Fd = opened.Outcome.Value;
        listener->InterfaceIndex = opened.InterfaceIndex;
        listener->FromElsewhere = opened.FromElsewhere;
    }

    /// <summary>A connection accepted from a socket, which may be closed since, has ended.</summary>
    public void FlowEnded(int index, uint generation)
    {
        if (_slots.Generation(index) == generation)
            _slots[index]->Flows--;
    }

    /// <summary>Changes the owner of all sockets, to that of those which are opened later.</summary>
    public void ChangeOwner(Identity owner)
    {
        for (int i = 0; i < High; i++)
        {
            if (Exists(i))
                _ = Descriptors.ChangeOwner(owner, this[i]->Fd).Ok;
        }
    }

    /// <summary>Closes a socket and forgets it.</summary>
    public void Close(int index)
    {
        Check.That(Exists(index), "a listening socket is closed once");
        Listener* listener = _slots[index];
        int* link = _buckets.Pointer + Bucket(listener->Pif, listener->Local.Protocol, listener->Local.Port);
        while (*link != index)
            link = &_slots[*link]->Next;
        *link = listener->Next;
        Descriptors.Close(listener->Fd);
        _budget.Give(listener->Use, 1);
        _slots.Return(index);
    }

    // Ports of a rule follow each other, so they are spread by themselves; the rest only has to keep pifs and protocols apart.
    int Bucket(int pif, IpProtocol protocol, ushort port) => (port + (pif * 0x5555) + (protocol == IpProtocol.Udp ? 0x3333 : 0)) & _mask;
}
