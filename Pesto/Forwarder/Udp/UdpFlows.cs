using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Loop;
using Pesto.Forwarder.Namespace;
using Pesto.Forwarder.Reporting;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Udp;

/// <summary>
/// Carries datagrams between clients and targets. They are received many at a time; what follows each other in one flow
/// goes on in one call, as one row if the sizes allow. Answers of all flows are gathered over an iteration of the loop.
/// What can't be sent is dropped and counted, as a router would.
/// </summary>
public sealed unsafe class UdpFlows : IEventHandler, ITimed
{
    const int Batch = 64;

    /// <summary>What one flow's target may send before others get their turn, in datagrams or rows.</summary>
    const int FairShare = 4 * Batch;

    /// <summary>More than a receive buffer holds: nothing is drained for ever.</summary>
    const int MostDrained = 1 << 16;

    /// <summary>What a flow's socket is to hold while the loop is busy elsewhere, in bytes.</summary>
    const int FlowBuffer = 1024 * 1024;

    /// <summary>How many flows may end before others get their turn: each takes a few microseconds.</summary>
    const int MostEnded = 256;

    /// <summary>How many idle flows make room at a time for something else that needs descriptors, and how long they have been idle.</summary>
    const int MakeRoomFor = 16;
    const long IdleEnough = 10_000;

    const Events Interest = Events.In | Events.Edge;

    readonly EventLoop _loop;
    readonly Counters _counters;
    readonly Backpressure _limits;
    readonly Tables _tables;
    readonly Listeners _listeners;
    readonly Targets _targets;
    readonly FlowTable _flows;
    readonly Datagrams _asked = new(Batch, withSources: true);
    readonly Datagrams _answers = new(Batch, withSources: false);
    readonly int[] _answering = new int[Batch];
    readonly Outgoing _outgoing = new(Batch);
    readonly NativeArray<ulong> _ready;
    readonly bool _canSendRows;
    readonly int _kind;
    int _answerCount;
    int _readyCount;

    public UdpFlows(EventLoop loop, Counters counters, Backpressure limits, Tables tables, Listeners listeners, Targets targets, FlowTable flows)
    {
        _loop = loop;
        _counters = counters;
        _limits = limits;
        _tables = tables;
        _listeners = listeners;
        _targets = targets;
        _flows = flows;
        _ready = new(flows.Capacity);
        _kind = loop.AddHandler(this);
        loop.AddTimed(this);
        limits.MakeRoom += MakeRoom;
        Result probe = Sockets.Udp(SocketAddress.V4);
        if (probe.Ok)
        {
            _canSendRows = Sockets.CanSendSegments(probe.Value);
            Descriptors.Close(probe.Value);
        }
    }

    /// <summary>Forwards what waits on a listening socket by the rule, up to so many datagrams. True if there may be more.</summary>
    public bool Receive(int listener, Rule* rule, int most)
    {
        Listeners.Listener* from = _listeners[listener];
        ushort port = rule->TargetPort(from->Local.Port);
        SocketAddress v4 = _targets.Of(rule->Target, isV4: true, port), v6 = _targets.Of(rule->Target, isV4: false, port);
        most = Math.Min(most, MostDrained);
        for (int received = 0; received < most; received += Batch)
        {
            Result count = _asked.Receive(from->Fd, 0, Batch);
            if (count.Is(Errno.EINTR))
                continue;
            if (!count.Ok)
                return !count.Is(Errno.EAGAIN);
            Ask(listener, count.Value, in v4, in v6);
            if (count.Value < Batch)
                return false;
        }

        return true;
    }

    /// <summary>Datagrams that came to a listening socket: what follows each other in one flow goes on together.</summary>
    void Ask(int listener, int count, in SocketAddress v4, in SocketAddress v6)
    {
        Listeners.Listener* from = _listeners[listener];
        bool toldLocal = from->Local.Address.IsWildcard;
        int current = -1, first = 0;
        for (int i = 0; i < count; i++)
        {
            ref SocketAddress client = ref _asked.Source(i);
            Address local = toldLocal ? _asked.Local(i) : from->Local.Address;
            FlowKey key = new(client.Address, local, client.Scope, client.Port, from->Local.Port, from->Pif);
            if (current >= 0)
            {
                if (_flows[current]->Key.Equals(key))
                    continue;
                SendToTarget(current, first, i - first);
            }

            first = i;
            current = FlowOf(in key, listener, in (key.Client.IsV4 ? ref v4 : ref v6));
            if (current < 0)
                _counters.DatagramsDropped += _asked.Held(i);
        }

        if (current >= 0)
            SendToTarget(current, first, count - first);
    }

    /// <summary>The flow that a datagram belongs to, a new one if need be; -1 if none is to be had.</summary>
    int FlowOf(in FlowKey key, int listener, in SocketAddress target)
    {
        int index = _flows.Find(in key);
        if (index < 0)
            return NewFlow(in key, listener, in target);
        if (!_flows[index]->Target.Equals(in target))
        {
            // A commit has given the rule another target.
            End(index);
            return NewFlow(in key, listener, in target);
        }

        if (_flows[index]->Listener != listener)
            _flows.Move(index, listener);
        _flows.Asked(index, _loop.Now);
        return index;
    }

    int NewFlow(in FlowKey key, int listener, in SocketAddress target)
    {
        NetworkNamespace side = _tables.Pifs[_listeners[listener]->Pif].Connects;
        if (_flows.Count == _flows.Capacity)
            Shed(Errno.None);
        Result socket = Connected(side, in target);
        // EAGAIN: no local port is left.
        if (socket.Is(Errno.EAGAIN) || _limits.IsExhaustion(socket.Error))
        {
            Shed(socket.Error);
            socket = Connected(side, in target);
        }

        if (!socket.Ok)
        {
            Log.Debug($"UDP target {target.Address}:{target.Port}: {socket.Error.Text()}");
            return -1;
        }

        int fd = socket.Value;
        int index = _flows.Add(in key, in target, fd, listener, _loop.Now);
        _counters.UdpOpen++;
        _counters.UdpTotal++;
        Result watched = _loop.Epoll.Add(fd, Interest, new EventKey(_kind, index, _flows.Generation(index)).Word);
        if (watched.Ok)
            return index;
        _limits.MadeRoom("watched descriptors", watched.Error);
        End(index);
        return -1;
    }

    static Result Connected(NetworkNamespace side, in SocketAddress target)
    {
        Result socket = side.Udp(target.Family);
        if (!socket.Ok)
            return socket;
        Sockets.SetBuffers(socket.Value, FlowBuffer);
        _ = Sockets.SetSegmentsReceived(socket.Value).Ok;
        Result connected = Sockets.Connect(socket.Value, in target);
        if (connected.Ok)
            return socket;
        Descriptors.Close(socket.Value);
        return connected;
    }

    void SendToTarget(int index, int first, int count)
    {
        FlowTable.Flow* flow = _flows[index];
        if (count == 1 && _asked.Segment(first) == 0)
        {
            // The usual case, and the cheapest call there is for it.
            int length = _asked.Length(first);
            Result sent = Sockets.Send(flow->Fd, _asked.Bytes(first), length);
            if (sent.Ok)
            {
                _counters.DatagramsIn++;
                _counters.BytesIn += length;
            }
            else
            {
                _counters.DatagramsDropped++;
                Failed(index, sent.Error);
            }

            return;
        }

        _outgoing.Clear();
        Pack(_asked, index, first, count, !flow->SingleIn, null, Address.Any);
        bool all = _outgoing.Send(flow->Fd);
        Errno error = Errno.None;
        for (int i = 0; i < _outgoing.Count; i++)
        {
            ref readonly Outgoing.Parcel parcel = ref _outgoing[i];
            Count(in parcel, ref _counters.DatagramsIn, ref _counters.BytesIn);
            if (all)
                continue;
            flow->SingleIn |= parcel.RowRefused;
            error = parcel.Error == Errno.None ? error : parcel.Error;
        }

        if (error != Errno.None)
            Failed(index, error);
    }

    /// <summary>Puts datagrams of one flow into messages: as rows where their sizes allow.</summary>
    void Pack(Datagrams batch, int flow, int first, int count, bool inRows, SocketAddress* to, Address from)
    {
        int end = first + count;
        while (first < end)
        {
            int length = batch.Length(first), total = length, row = 1, segment = batch.Segment(first);
            if (segment == 0 && inRows && _canSendRows && length > 0)
            {
                // All of one size, only the last may be shorter. A row can't hold an empty datagram.
                for (int last = length; last == length && row < Outgoing.MostInRow && first + row < end; row++)
                {
                    last = batch.Length(first + row);
                    total += last;
                    if (last > length || last == 0 || total > Outgoing.MostBytesInRow || batch.Segment(first + row) != 0)
                        break;
                }

                segment = row > 1 ? length : 0;
            }

            _outgoing.Add(flow, batch, first, row, segment, to, from);
            first += row;
        }
    }

    void Count(in Outgoing.Parcel parcel, ref long datagrams, ref long bytes)
    {
        datagrams += parcel.Datagrams - parcel.Lost;
        bytes += parcel.Lost == 0 ? parcel.Bytes : parcel.Bytes / parcel.Datagrams * (parcel.Datagrams - parcel.Lost);
        _counters.DatagramsDropped += parcel.Lost;
    }

    /// <summary>
    /// Something did not get to the target. If it is because nobody listens there, that ends the flow. The client is not told:
    /// the kernel sends "port unreachable" only for a port without a socket, and to send it oneself takes a raw socket, which
    /// an ordinary user does not get. When a rule is gone its port has no socket, so then clients are told.
    /// </summary>
    void Failed(int index, Errno error)
    {
        if (error != Errno.ECONNREFUSED)
            return;
        _counters.UdpRefused++;
        End(index);
    }

    public void OnEvents(EventKey key, Events events)
    {
        if (key.IsOf(_flows.Generation(key.Index)))
            Answer(key.Index);
    }

    /// <summary>Receives what a target has sent. It leaves at the end of the iteration, or when there is no more room.</summary>
    void Answer(int index)
    {
        int fd = _flows[index]->Fd;
        Errno error = Errno.None;
        for (int received = 0; received < FairShare;)
        {
            if (_answerCount == Batch)
                Flush();
            int room = Batch - _answerCount;
            Result count = _answers.Receive(fd, _answerCount, room);
            if (!count.Ok)
            {
                if (count.Is(Errno.EAGAIN))
                    received = FairShare;
                else if (!count.Is(Errno.EINTR))
                    error = count.Error;
                // What came before an error is still there.
                received++;
                continue;
            }

            _flows.Replied(index, _loop.Now);
            for (int i = 0; i < count.Value; i++)
                _answering[_answerCount++] = index;
            if (count.Value < room)
                break;
            received += count.Value;
            if (received >= FairShare && !_flows[index]->IsReady)
                MakeReady(index);
        }

        if (error != Errno.None)
            Failed(index, error);
    }

    void MakeReady(int index)
    {
        _flows[index]->IsReady = true;
        _ready[_readyCount++] = new EventKey(_kind, index, _flows.Generation(index)).Word;
    }

    /// <summary>Sends the gathered answers to their clients, by the sockets and from the addresses that the clients know.</summary>
    void Flush()
    {
        int count = _answerCount;
        _answerCount = 0;
        for (int i = 0; i < count;)
        {
            int listener = _flows[_answering[i]]->Listener;
            bool fromAny = _listeners[listener]->Local.Address.IsWildcard;
            _outgoing.Clear();
            while (i < count && _flows[_answering[i]]->Listener == listener)
            {
                int index = _answering[i], first = i;
                while (i < count && _answering[i] == index)
                    i++;
                FlowTable.Flow* flow = _flows[index];
                Pack(_answers, index, first, i - first, !flow->SingleOut, &flow->Client, fromAny ? flow->Key.Local : Address.Any);
            }

            bool all = _outgoing.Send(_listeners[listener]->Fd);
            for (int message = 0; message < _outgoing.Count; message++)
            {
                ref readonly Outgoing.Parcel parcel = ref _outgoing[message];
                Count(in parcel, ref _counters.DatagramsOut, ref _counters.BytesOut);
                if (!all && parcel.RowRefused)
                    _flows[parcel.Owner]->SingleOut = true;
            }
        }
    }

    /// <summary>
    /// A listening socket is about to be closed. Flows whose address and port another one serves go on there; the others
    /// end, since their answers can't leave any more. False if there are more to end than is fair at a time.
    /// </summary>
    public bool Leave(int listener)
    {
        int ended = 0;
        int next;
        for (int index = _flows.FirstOf(listener); index >= 0; index = next)
        {
            next = _flows[index]->Next;
            int heir = Heir(listener, _flows[index]->Key.Local);
            if (heir >= 0)
                _flows.Move(index, heir);
            else if (ended++ < MostEnded)
                End(index);
        }

        return ended <= MostEnded;
    }

    /// <summary>Another listening socket in force that serves this address on the same port, or -1.</summary>
    int Heir(int listener, Address local)
    {
        Listeners.Listener* old = _listeners[listener];
        for (int i = _listeners.FirstOnPort(old->Pif, IpProtocol.Udp, old->Local.Port); i >= 0; i = _listeners.NextOnPort(i))
        {
            Listeners.Listener* other = _listeners[i];
            if (i != listener && !other->Quiesced && other->Rule[_tables.Active] >= 0 && other->Local.Serves(local))
                return i;
        }

        return -1;
    }

    /// <summary>The flow that has been idle longest makes room.</summary>
    void Shed(Errno why)
    {
        _limits.MadeRoom("UDP flows", why);
        if (_flows.Oldest < 0)
            return;
        _counters.UdpShed++;
        End(_flows.Oldest);
    }

    /// <summary>Ends some flows that have been idle for a while, because something else needs what they hold.</summary>
    void MakeRoom()
    {
        for (int i = 0; i < MakeRoomFor; i++)
        {
            int oldest = _flows.Oldest;
            if (oldest < 0 || _loop.Now - _flows[oldest]->Moved < IdleEnough)
                return;
            _counters.UdpShed++;
            End(oldest);
        }
    }

    void End(int index)
    {
        // Its answers that are gathered already are still to go.
        Flush();
        Descriptors.Close(_flows[index]->Fd);
        _flows.Remove(index);
        _counters.UdpOpen--;
        _limits.Released();
    }

    public long Deadline => _answerCount > 0 || _readyCount > 0 ? 0 : _flows.Deadline;

    public void OnTime(long now)
    {
        int count = _readyCount;
        _readyCount = 0;
        for (int i = 0; i < count; i++)
        {
            // Flows that have still more write their keys at or before the place that was just read.
            EventKey key = new(_ready[i]);
            if (!key.IsOf(_flows.Generation(key.Index)))
                continue;
            _flows[key.Index]->IsReady = false;
            Answer(key.Index);
        }

        Flush();
        for (int i = 0; i < MostEnded && _flows.Expired(now) is int expired and >= 0; i++)
            End(expired);
    }
}
