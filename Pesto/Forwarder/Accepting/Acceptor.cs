using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Loop;
using Pesto.Forwarder.Namespace;
using Pesto.Forwarder.Reporting;
using Pesto.Forwarder.Tcp;
using Pesto.Forwarder.Udp;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Accepting;

/// <summary>Takes what comes to the listening sockets and hands it to the flows, with the target that the socket's rule names.</summary>
public sealed unsafe class Acceptor : IEventHandler, ITimed
{
    /// <summary>The most that are accepted from one socket before others get their turn.</summary>
    const int FairShare = 16;

    /// <summary>A socket from which fewer connections are open gets some more when others have taken all that there are for everyone.</summary>
    const int FewFlows = 4;

    /// <summary>How many paused sockets are watched again in one iteration.</summary>
    const int MostResumed = 16;

    readonly EventLoop _loop;
    readonly Tables _tables;
    readonly Listeners _listeners;
    readonly TcpFlows _tcp;
    readonly UdpFlows _udp;
    readonly Backpressure _backpressure;
    readonly LimitLog _limits;
    readonly DescriptorBudget _budget;
    readonly Targets _targets;
    readonly Counters _counters;
    readonly int _kind;

    /// <summary>Sockets for whose connections there is no room, or whose target can't take more: unwatched until the time is over, or something was given back.</summary>
    readonly TimeoutList _paused;
    long _giftsSeen;

    public Acceptor(
        EventLoop loop, Tables tables, Listeners listeners, TcpFlows tcp, UdpFlows udp, Backpressure backpressure, LimitLog limits, DescriptorBudget budget, Targets targets, Counters counters)
    {
        _loop = loop;
        _tables = tables;
        _listeners = listeners;
        _tcp = tcp;
        _udp = udp;
        _backpressure = backpressure;
        _limits = limits;
        _budget = budget;
        _targets = targets;
        _counters = counters;
        _paused = new(listeners.Capacity, Backpressure.RetryMilliseconds);
        _kind = loop.AddHandler(this);
    }

    /// <summary>What came of accepting from a socket.</summary>
    public enum Accepted
    {
        /// <summary>Nothing waits there any more.</summary>
        All,

        /// <summary>There may be more.</summary>
        Some,

        /// <summary>A limit was reached.</summary>
        Full,
    }

    public void OnEvents(EventKey key, Events events)
    {
        int index = key.Index;
        if (!key.IsOf(_listeners.Generation(index)))
            return;
        Rule* rule = RuleInForce(index);
        // A parked socket, or one that is new: what comes to it waits in the kernel. The event would come again and again.
        if (rule == null)
            Disarm(index);
        else
            _ = Accept(index, rule, FairShare);
    }

    /// <summary>The active rule by which a socket is served, or null.</summary>
    public Rule* RuleInForce(int index)
    {
        Listeners.Listener* listener = _listeners[index];
        int rule = listener->Rule[_tables.Active];
        if (rule < 0 && listener->Handover)
            rule = RuleInItsPlace(listener);
        return rule < 0 ? null : _tables.Rule(listener->Pif, _tables.Active, rule);
    }

    /// <summary>
    /// During a handover two sockets overlap, and the kernel gives a connection to the one that is more specific, though it
    /// may not be the one that the active rule wants. If that rule means everything that the socket can get, it serves it;
    /// if it means less, such as 127.0.0.1 where the socket has every address, what comes must not get in by it.
    /// </summary>
    int RuleInItsPlace(Listeners.Listener* listener)
    {
        ReadOnlySpan<Rule> rules = _tables.Rules(listener->Pif, _tables.Active);
        for (int i = 0; i < rules.Length; i++)
        {
            ref readonly Rule rule = ref rules[i];
            if (rule.Covers(listener->Local.Port) && rule.At(listener->Local.Port).Includes(in listener->Local))
                return i;
        }

        return -1;
    }

    /// <summary>Accepts up to so many connections, or datagrams, and forwards them by the rule.</summary>
    /// <param name="isLast">The socket is about to be closed: what waits on it may use what is kept for that.</param>
    public Accepted Accept(int index, Rule* rule, int most, bool isLast = false)
    {
        Listeners.Listener* listener = _listeners[index];
        if (listener->Local.Protocol == IpProtocol.Udp)
            return _udp.Receive(index, rule, most) ? Accepted.Some : Accepted.All;
        Tables.PifEntry pif = _tables.Pifs[listener->Pif];
        ushort port = rule->TargetPort(listener->Local.Port);
        for (int i = 0; i < most; i++)
        {
            // What can't be served now waits in the kernel's queue, and is not reset.
            if (!HasRoom(listener, isLast, out DescriptorUse use))
            {
                _limits.Reached("descriptors for connections", Errno.None);
                return NoRoom(index, isLast);
            }

            bool isV4 = listener->Local.Address.IsV4;
            SocketAddress peer = default;
            Result accepted;
            if (listener->Local.IsDualStack || !listener->FromElsewhere.IsNone || pif.Clients.Matters || rule->IsScan)
            {
                accepted = Sockets.Accept(listener->Fd, out peer);
                isV4 = peer.Address.IsV4;
                if (accepted.Ok)
                    CongestionChoice.ForAccepted(accepted.Value, in listener->FromElsewhere, peer.Address);
            }
            else
            {
                accepted = Sockets.Accept(listener->Fd);
            }

            if (accepted.Ok)
            {
                if (listener->QuiescedByHops)
                    Sockets.AcceptFromAfar(accepted.Value, listener->Local.Family);
                SocketAddress target = _targets.Of(rule->Target, isV4, port);
                if (!pif.Allows(in *rule, in peer, in target))
                    pif.Clients.Refuse(in peer, in target, accepted.Value);
                else if (!_tcp.Add(accepted.Value, in peer, index, use, pif, in target))
                    return NoRoom(index, isLast);
            }
            else if (accepted.Is(Errno.EAGAIN))
            {
                return Accepted.All;
            }
            else if (LimitLog.IsExhaustion(accepted.Error))
            {
                _limits.Reached("accepting connections", accepted.Error);
                return NoRoom(index, isLast);
            }

            // Anything else is an error of the one connection, which is gone already: ECONNABORTED, EPROTO, a network that went down.
        }

        return Accepted.Some;
    }

    /// <summary>Whether there are descriptors for another flow, and as what they count.</summary>
    bool HasRoom(Listeners.Listener* listener, bool isLast, out DescriptorUse use)
    {
        use = DescriptorUse.TcpFlow;
        if (_backpressure.HasRoom(use, TcpFlows.DescriptorsEach))
            return true;
        if (!isLast && listener->Flows >= FewFlows)
            return false;
        use = isLast ? DescriptorUse.TcpFlowOfClosingPort : DescriptorUse.TcpFlowOfQuietPort;
        return _budget.CanTake(use, TcpFlows.DescriptorsEach);
    }

    /// <summary>A socket that has to wait is left alone for a while, and no other because of it. One that is about to be closed is asked again by what closes it.</summary>
    Accepted NoRoom(int index, bool isLast)
    {
        if (!isLast)
        {
            Disarm(index);
            Pause(index);
        }

        return Accepted.Full;
    }

    void Pause(int index)
    {
        _listeners[index]->Paused = true;
        _paused.Start(index, _loop.Now);
    }

    /// <summary>Counts the connections that wait on a socket which is about to be closed without them: the kernel resets them.</summary>
    public void CountReset(int index)
    {
        int waiting = Sockets.AcceptQueueLength(_listeners[index]->Fd);
        if (waiting == 0)
            return;
        _counters.Shed += waiting;
        Log.Warn($"TCP port {_listeners[index]->Local.Port} is closed while {waiting} connections wait for which there is no room: they are reset");
    }

    public long Deadline => _paused.First < 0 ? long.MaxValue : _giftsSeen != _budget.Gifts ? 0 : _paused.Deadline;

    /// <summary>Has paused sockets watched again, those first that have waited longest.</summary>
    public void OnTime(long now)
    {
        bool isRoom = _giftsSeen != _budget.Gifts;
        _giftsSeen = _budget.Gifts;
        for (int i = 0; i < MostResumed && _paused.First >= 0 && (isRoom || _paused.Deadline <= now); i++)
        {
            int index = _paused.First;
            if (RuleInForce(index) != null)
                Arm(index);
            else
                Disarm(index);
        }
    }

    /// <summary>Asks for the events of a socket.</summary>
    public void Arm(int index)
    {
        Listeners.Listener* listener = _listeners[index];
        if (listener->Armed)
            return;
        Disarm(index);
        Result watched = _loop.Epoll.Add(listener->Fd, Events.In, new EventKey(_kind, index, _listeners.Generation(index)).Word);
        listener->Armed = watched.Ok;
        if (watched.Ok)
            return;
        _limits.Reached("watched descriptors", watched.Error);
        Pause(index);
    }

    /// <summary>Leaves what comes to a socket in the kernel until it is armed again.</summary>
    public void Disarm(int index)
    {
        Listeners.Listener* listener = _listeners[index];
        if (listener->Paused)
            _paused.Stop(index);
        listener->Paused = false;
        if (!listener->Armed)
            return;
        listener->Armed = false;
        _ = _loop.Epoll.Remove(listener->Fd).Ok;
    }

    /// <summary>What to do before a socket is closed; false if that needs more time.</summary>
    public bool Leave(int index) => _listeners[index]->Local.Protocol == IpProtocol.Tcp || _udp.Leave(index);
}
