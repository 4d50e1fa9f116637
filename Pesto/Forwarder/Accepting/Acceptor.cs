using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Loop;
using Pesto.Forwarder.Reporting;
using Pesto.Forwarder.Tcp;
using Pesto.Forwarder.Udp;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Accepting;

/// <summary>Takes what comes to the listening sockets and hands it to the flows, with the target that the socket's rule names.</summary>
public sealed unsafe class Acceptor : IEventHandler
{
    /// <summary>The most that are accepted from one socket before others get their turn.</summary>
    const int FairShare = 16;

    readonly EventLoop _loop;
    readonly Tables _tables;
    readonly Listeners _listeners;
    readonly TcpFlows _tcp;
    readonly UdpFlows _udp;
    readonly Backpressure _limits;
    readonly Targets _targets;
    readonly Counters _counters;
    readonly int _descriptors;
    readonly int _kind;

    /// <param name="descriptors">How many may be open for listening sockets and flows.</param>
    public Acceptor(
        EventLoop loop, Tables tables, Listeners listeners, TcpFlows tcp, UdpFlows udp, Backpressure limits, Targets targets, Counters counters, int descriptors)
    {
        _loop = loop;
        _tables = tables;
        _listeners = listeners;
        _tcp = tcp;
        _udp = udp;
        _limits = limits;
        _targets = targets;
        _counters = counters;
        _descriptors = descriptors;
        _kind = loop.AddHandler(this);
        limits.Recovered = ArmAll;
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
        // Datagrams are taken even if there is room for no new flow: most belong to flows that exist.
        if (rule == null || (_limits.Full && _listeners[index]->Local.Protocol == IpProtocol.Tcp))
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
    /// <param name="isLast">The socket goes away: what waits on it may use what is kept for other things.</param>
    public Accepted Accept(int index, Rule* rule, int most, bool isLast = false)
    {
        Listeners.Listener* listener = _listeners[index];
        if (listener->Local.Protocol == IpProtocol.Udp)
            return _udp.Receive(index, rule, most) ? Accepted.Some : Accepted.All;
        Tables.PifEntry pif = _tables.Pifs[listener->Pif];
        ushort port = rule->TargetPort(listener->Local.Port);
        for (int i = 0; i < most; i++)
        {
            // Who can't be served now waits in the kernel's queue, and is not reset.
            if (!isLast && !HasRoom())
            {
                _limits.Reached("descriptors for connections", Errno.None);
                Disarm(index);
                return Accepted.Full;
            }

            bool isV4 = listener->Local.Address.IsV4;
            SocketAddress peer = default;
            Result accepted;
            if (listener->Local.IsDualStack || !listener->FromElsewhere.IsNone || pif.Clients.Matters)
            {
                accepted = Sockets.Accept(listener->Fd, out peer);
                isV4 = peer.Address.IsV4;
                if (accepted.Ok && !listener->FromElsewhere.IsNone && !peer.Address.IsLoopback)
                    _ = listener->FromElsewhere.ApplyTo(accepted.Value).Ok;
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
                _tcp.Add(accepted.Value, in peer, pif, in target);
                if (_limits.Full)
                    return Accepted.Full;
            }
            else if (accepted.Is(Errno.EAGAIN))
            {
                return Accepted.All;
            }
            else if (_limits.IsExhaustion(accepted.Error))
            {
                _limits.Reached("accepting connections", accepted.Error);
                Disarm(index);
                return Accepted.Full;
            }

            // Anything else is an error of the one connection, which is gone already: ECONNABORTED, EPROTO, a network that went down.
        }

        return Accepted.Some;
    }

    bool HasRoom()
    {
        while (_listeners.Count + _tcp.DescriptorCount + _counters.UdpOpen + TcpFlows.DescriptorsEach > _descriptors)
        {
            if (!_tcp.MakeRoom())
                return false;
        }

        return true;
    }

    /// <summary>Asks for the events of a socket.</summary>
    public void Arm(int index)
    {
        Listeners.Listener* listener = _listeners[index];
        if (listener->Armed)
            return;
        Result watched = _loop.Epoll.Add(listener->Fd, Events.In, new EventKey(_kind, index, _listeners.Generation(index)).Word);
        listener->Armed = watched.Ok;
        if (!watched.Ok)
            _limits.Reached("watched descriptors", watched.Error);
    }

    public void Disarm(int index)
    {
        Listeners.Listener* listener = _listeners[index];
        if (!listener->Armed)
            return;
        listener->Armed = false;
        _ = _loop.Epoll.Remove(listener->Fd).Ok;
    }

    /// <summary>What to do before a socket is closed; false if that needs more time.</summary>
    public bool Leave(int index) => _listeners[index]->Local.Protocol == IpProtocol.Tcp || _udp.Leave(index);

    void ArmAll()
    {
        for (int i = 0; i < _listeners.High; i++)
        {
            if (_listeners.Exists(i) && RuleInForce(i) != null)
                Arm(i);
        }
    }
}
