using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Loop;
using Pesto.Forwarder.Reporting;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Udp;

/// <summary>
/// The life of UDP flows: the first datagram of a client begins one; it ends when it has been idle for its time, when nothing
/// listens on its target, when its rule is gone, or to make room. <see cref="UdpRelay"/> moves the datagrams.
/// </summary>
public sealed unsafe class UdpFlows : IEventHandler, ITimed, IGivesRoom
{
    /// <summary>More than a receive buffer holds: nothing is drained for ever.</summary>
    const int MostDrained = 1 << 16;

    /// <summary>What a flow's socket is to hold while the loop is busy elsewhere, in bytes.</summary>
    const int FlowBuffer = 1024 * 1024;

    /// <summary>How many flows may end before others get their turn: each takes a few microseconds.</summary>
    const int MostEnded = 256;

    /// <summary>How many idle flows make room at a time for something else that needs descriptors, and for how many milliseconds they have been idle.</summary>
    const int MakeRoomFor = 16;
    const long IdleEnough = 10_000;

    /// <summary>How many errors are taken out of a socket's queue at a time. More than it holds at its least.</summary>
    const int MostErrors = 64;

    const Events Interest = Events.In | Events.Edge;

    readonly EventLoop _loop;
    readonly Counters _counters;
    readonly LimitLog _limits;
    readonly DescriptorBudget _budget;
    readonly Tables _tables;
    readonly Listeners _listeners;
    readonly Targets _targets;
    readonly UdpFlowTable _flows;
    readonly UdpRelay _relay;
    readonly NativeArray<ulong> _ready;
    readonly int _kind;
    int _readyCount;

    public UdpFlows(EventLoop loop, Counters counters, LimitLog limits, DescriptorBudget budget, Tables tables, Listeners listeners, Targets targets, UdpFlowTable flows)
    {
        _loop = loop;
        _counters = counters;
        _limits = limits;
        _budget = budget;
        _tables = tables;
        _listeners = listeners;
        _targets = targets;
        _flows = flows;
        _relay = new(counters, listeners, flows);
        _ready = new(flows.Capacity);
        _kind = loop.AddHandler(this);
    }

    /// <summary>Forwards what waits on a listening socket by the rule, up to so many datagrams. True if there may be more.</summary>
    public bool Receive(int listener, Rule* rule, int most)
    {
        ushort port = rule->TargetPort(_listeners[listener]->Local.Port);
        SocketAddress v4 = _targets.Of(rule->Target, isV4: true, port), v6 = _targets.Of(rule->Target, isV4: false, port);
        most = Math.Min(most, MostDrained);
        for (int received = 0; received < most; received += UdpRelay.BatchSize)
        {
            Result count = _relay.ReceiveRequests(listener);
            if (count.Is(Errno.EINTR))
                continue;
            if (!count.Ok)
                return !count.Is(Errno.EAGAIN);
            Forward(listener, rule, count.Value, in v4, in v6);
            if (count.Value < UdpRelay.BatchSize)
                return false;
        }

        return true;
    }

    /// <summary>Sends the requests just received to their targets; those of one flow that follow each other, together.</summary>
    void Forward(int listener, Rule* rule, int count, in SocketAddress v4, in SocketAddress v6)
    {
        int current = -1, first = 0;
        for (int i = 0; i < count; i++)
        {
            UdpFlowKey key = _relay.KeyOf(i, listener);
            if (current >= 0)
            {
                if (_flows[current]->Key.Equals(key))
                    continue;
                Send(current, first, i - first);
            }

            first = i;
            ref readonly SocketAddress target = ref key.Client.IsV4 ? ref v4 : ref v6;
            current = rule->IsScan && !IsAllowed(rule, in key, in target) ? -1 : FlowOf(in key, listener, in target);
            if (current >= 0)
                _flows[current]->Interface = _relay.InterfaceOf(i);
            else
                _relay.DropRequest(i);
        }

        if (current >= 0)
            Send(current, first, count - first);
    }

    void Send(int index, int first, int count)
    {
        Errno error = _relay.SendRequests(index, first, count);
        if (error != Errno.None)
            Failed(index, error);
    }

    bool IsAllowed(Rule* rule, in UdpFlowKey key, in SocketAddress target)
    {
        Tables.PifEntry pif = _tables.Pifs[key.Pif];
        SocketAddress client = key.ClientAddress;
        if (pif.Allows(in *rule, in client, in target))
            return true;
        pif.Clients.NotAllowed(in client, in target);
        return false;
    }

    /// <summary>The flow that a request belongs to, a new one if need be; -1 if none is to be had.</summary>
    int FlowOf(in UdpFlowKey key, int listener, in SocketAddress target)
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
        _flows.Requested(index, _loop.Now);
        return index;
    }

    int NewFlow(in UdpFlowKey key, int listener, in SocketAddress target)
    {
        // To the kernel, 0.0.0.0 as the address of a peer is this host: what is sent for it, or to it, would come from loopback, or there.
        if (key.Client.IsWildcard)
            return -1;
        Tables.PifEntry pif = _tables.Pifs[key.Pif];
        SocketAddress client = key.ClientAddress;
        if (!_budget.CanTake(DescriptorUse.UdpFlow, 1))
        {
            Shed(_flows.Count == _flows.Capacity ? Errno.None : Errno.EMFILE);
            if (!_budget.CanTake(DescriptorUse.UdpFlow, 1))
                return -1;
        }

        Result opened = UdpTargetSocket.Open(pif, in client, in target, FlowBuffer, out UdpTargetSocket socket);
        // EAGAIN: no local port is left.
        if (opened.Is(Errno.EAGAIN) || LimitLog.IsExhaustion(opened.Error))
        {
            Shed(opened.Error);
            opened = UdpTargetSocket.Open(pif, in client, in target, FlowBuffer, out socket);
        }

        if (!opened.Ok)
        {
            Log.Debug($"UDP target {target.Address}:{target.Port}: {opened.Error.Text()}");
            return -1;
        }

        _ = _budget.TryTake(DescriptorUse.UdpFlow, 1);
        // The budget has no more of these than there are slots.
        int index = _flows.Add(in key, in target, in socket, listener, _loop.Now);
        if (pif.Clients.ProxyVersion == 2)
            _flows[index]->Header = ProxyHeader.Version2(IpProtocol.Udp, in client, SocketAddress.Of(key.Local, key.Port));
        _counters.UdpOpen++;
        _counters.UdpTotal++;
        Result watched = _loop.Epoll.Add(socket.Fd, Interest, new EventKey(_kind, index, _flows.Generation(index)).Word);
        if (watched.Ok)
            return index;
        _limits.MadeRoom("watched descriptors", watched.Error);
        End(index);
        return -1;
    }

    /// <summary>
    /// Something did not get to the target. ECONNREFUSED, nothing listens there, ends the flow. The client gets no ICMP "port unreachable": the
    /// kernel sends that for a port without a socket only, and sending it from here takes a raw socket and CAP_NET_RAW.
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
        if (!key.IsOf(_flows.Generation(key.Index)))
            return;
        ReceiveReplies(key.Index);
        if ((events & Events.Error) != 0 && key.IsOf(_flows.Generation(key.Index)))
            EmptyErrorQueue(key.Index);
    }

    void ReceiveReplies(int index)
    {
        UdpRelay.Received received = _relay.ReceiveReplies(index);
        if (received.Any)
            _flows.Replied(index, _loop.Now);
        if (received.More && !_flows[index]->IsReady)
        {
            _flows[index]->IsReady = true;
            _ready[_readyCount++] = new EventKey(_kind, index, _flows.Generation(index)).Word;
        }

        if (received.Error != Errno.None)
            Failed(index, received.Error);
    }

    /// <summary>Errors in the queue of a socket that is not connected take room that replies need.</summary>
    void EmptyErrorQueue(int index)
    {
        Errno error = Errno.None;
        for (int i = 0; i < MostErrors && error is not (Errno.EAGAIN or Errno.ECONNREFUSED); i++)
            error = Sockets.NextError(_flows[index]->Socket.Fd);
        Failed(index, error);
    }

    /// <summary>
    /// A listening socket is about to be closed. Flows whose address and port another one serves go on there; the others
    /// end, since their replies can't leave any more. False if there are more to end than is fair at a time.
    /// </summary>
    public bool Leave(int listener)
    {
        int ended = 0;
        int next;
        for (int index = _flows.FirstOf(listener); index >= 0; index = next)
        {
            next = _flows[index]->Next;
            int successor = Successor(listener, _flows[index]);
            if (successor >= 0)
                _flows.Move(index, successor);
            else if (ended++ < MostEnded)
                End(index);
        }

        return ended <= MostEnded;
    }

    /// <summary>Another listening socket in force that serves the flow's client on the same address, port and interface, or -1.</summary>
    int Successor(int listener, UdpFlow* flow)
    {
        Listeners.Listener* old = _listeners[listener];
        for (int i = _listeners.FirstOnPort(old->Pif, IpProtocol.Udp, old->Local.Port); i >= 0; i = _listeners.NextOnPort(i))
        {
            Listeners.Listener* other = _listeners[i];
            if (i != listener && !other->Quiesced && other->Rule[_tables.Active] >= 0 && other->Local.Serves(flow->Key.Local) && HasClient(other, old, flow))
                return i;
        }

        return -1;
    }

    /// <summary>Whether what the flow's client sends would come to a socket: one that is bound to an interface sends by it, wherever the client is.</summary>
    static bool HasClient(Listeners.Listener* listener, Listeners.Listener* old, UdpFlow* flow) =>
        listener->Local.Interface.IsEmpty
        || (old->Local.Interface.IsEmpty ? flow->Interface != 0 && flow->Interface == Sockets.BoundInterface(listener->Fd) : listener->Local.Interface.Equals(old->Local.Interface));

    /// <summary>A flow makes room for another.</summary>
    void Shed(Errno why)
    {
        _limits.MadeRoom("UDP flows", why);
        int first = _flows.FirstToGo();
        if (first < 0)
            return;
        _counters.UdpShed++;
        End(first);
    }

    /// <summary>Ends some flows that have been idle for a while, because something else needs what they hold.</summary>
    public bool GiveRoom()
    {
        for (int i = 0; i < MakeRoomFor; i++)
        {
            int first = _flows.IdleSince(_loop.Now - IdleEnough);
            if (first < 0)
                return i > 0;
            _counters.UdpShed++;
            End(first);
        }

        return true;
    }

    void End(int index)
    {
        // Its replies that are gathered already are still to go.
        _relay.SendReplies();
        UdpFlow* flow = _flows[index];
        if (flow->Socket.IsTransparent)
            _tables.Pifs[flow->Key.Pif].Clients.Forget(flow->Socket.Fd, in flow->Socket.Target);
        Descriptors.Close(flow->Socket.Fd);
        _flows.Remove(index);
        _counters.UdpOpen--;
        _budget.Give(DescriptorUse.UdpFlow, 1);
    }

    public long Deadline => _relay.HasReplies || _readyCount > 0 ? 0 : _flows.Deadline;

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
            ReceiveReplies(key.Index);
        }

        _relay.SendReplies();
        for (int i = 0; i < MostEnded && _flows.Expired(now) is int expired and >= 0; i++)
            End(expired);
    }
}
