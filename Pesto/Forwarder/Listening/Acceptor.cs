using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder;

/// <summary>Takes what comes to the listening sockets and hands it to the flows, with the target that the socket's rule names.</summary>
public sealed unsafe class Acceptor : IEventHandler
{
    /// <summary>The most that are accepted from one socket before others get their turn.</summary>
    const int FairShare = 16;

    readonly Loop loop;
    readonly Tables tables;
    readonly Listeners listeners;
    readonly TcpFlows tcp;
    readonly UdpFlows udp;
    readonly Limits limits;
    readonly Targets targets;
    readonly Counters counters;
    readonly int descriptors;
    readonly int kind;

    /// <param name="descriptors">How many may be open for listening sockets and flows.</param>
    public Acceptor(
        Loop loop, Tables tables, Listeners listeners, TcpFlows tcp, UdpFlows udp, Limits limits, Targets targets, Counters counters, int descriptors)
    {
        this.loop = loop;
        this.tables = tables;
        this.listeners = listeners;
        this.tcp = tcp;
        this.udp = udp;
        this.limits = limits;
        this.targets = targets;
        this.counters = counters;
        this.descriptors = descriptors;
        this.kind = loop.AddHandler(this);
        limits.Recovered = this.ArmAll;
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
        if (!key.IsOf(this.listeners.Generation(index)))
            return;
        Rule* rule = this.RuleInForce(index);
        // A parked socket, or one that is new: what comes to it waits in the kernel. The event would come again and again.
        // Datagrams are taken even if there is room for no new flow: most belong to flows that exist.
        if (rule == null || (this.limits.Full && this.listeners[index]->Protocol == IpProtocol.Tcp))
            this.Disarm(index);
        else
            _ = this.Accept(index, rule, FairShare);
    }

    /// <summary>The active rule by which a socket is served, or null.</summary>
    public Rule* RuleInForce(int index)
    {
        Listeners.Listener* listener = this.listeners[index];
        int rule = listener->Rule[this.tables.Active];
        if (rule < 0 && listener->Handover)
            rule = this.RuleInItsPlace(listener);
        return rule < 0 ? null : this.tables.Rule(listener->Pif, this.tables.Active, rule);
    }

    /// <summary>
    /// During a handover two sockets overlap, and the kernel gives a connection to the one that is more specific, though it
    /// may not be the one that the active rule wants. If that rule means everything that the socket can get, it serves it;
    /// if it means less, such as 127.0.0.1 where the socket has every address, what comes must not get in by it.
    /// </summary>
    int RuleInItsPlace(Listeners.Listener* listener)
    {
        ReadOnlySpan<Rule> rules = this.tables.Rules(listener->Pif, this.tables.Active);
        for (int i = 0; i < rules.Length; i++)
        {
            ref readonly Rule rule = ref rules[i];
            if (rule.Protocol != listener->Protocol || !rule.Covers(listener->Port) || !(rule.Interface.IsEmpty || rule.Interface.Equals(listener->Interface)))
                continue;
            if (rule.IsDualStack || (!listener->DualStack && (rule.Address == listener->Address || (rule.Address.IsWildcard && rule.Address.IsV4 == listener->Address.IsV4))))
                return i;
        }

        return -1;
    }

    /// <summary>Accepts up to so many connections, or datagrams, and forwards them by the rule.</summary>
    /// <param name="isLast">The socket goes away: what waits on it may use what is kept for other things.</param>
    public Accepted Accept(int index, Rule* rule, int most, bool isLast = false)
    {
        Listeners.Listener* listener = this.listeners[index];
        if (listener->Protocol == IpProtocol.Udp)
            return this.udp.Receive(index, rule, most) ? Accepted.Some : Accepted.All;
        Side side = this.tables.Pifs[listener->Pif].Connects;
        ushort port = rule->TargetPort(listener->Port);
        for (int i = 0; i < most; i++)
        {
            // Who can't be served now waits in the kernel's queue, and is not reset.
            if (!isLast && !this.HasRoom())
            {
                this.limits.Reached("descriptors for connections", Errno.None);
                this.Disarm(index);
                return Accepted.Full;
            }

            bool isV4 = listener->Address.IsV4;
            Result accepted;
            if (listener->DualStack || !listener->FromElsewhere.IsNone)
            {
                accepted = Sockets.Accept(listener->Fd, out SocketAddress peer);
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
                if (listener->DeafByDistance)
                    Sockets.AcceptFromAfar(accepted.Value, listener->Family);
                SocketAddress target = this.targets.Of(rule->Target, isV4, port);
                this.tcp.Add(accepted.Value, side, in target);
                if (this.limits.Full)
                    return Accepted.Full;
            }
            else if (accepted.Is(Errno.EAGAIN))
            {
                return Accepted.All;
            }
            else if (this.limits.IsExhaustion(accepted.Error))
            {
                this.limits.Reached("accepting connections", accepted.Error);
                this.Disarm(index);
                return Accepted.Full;
            }

            // Anything else is an error of the one connection, which is gone already: ECONNABORTED, EPROTO, a network that went down.
        }

        return Accepted.Some;
    }

    bool HasRoom()
    {
        while (this.listeners.Count + this.tcp.DescriptorCount + this.counters.UdpOpen + TcpFlows.DescriptorsEach > this.descriptors)
        {
            if (!this.tcp.MakeRoom())
                return false;
        }

        return true;
    }

    /// <summary>Asks for the events of a socket.</summary>
    public void Arm(int index)
    {
        Listeners.Listener* listener = this.listeners[index];
        if (listener->Armed)
            return;
        Result watched = this.loop.Epoll.Watch(listener->Fd, Events.In, new EventKey(this.kind, index, this.listeners.Generation(index)).Word);
        listener->Armed = watched.Ok;
        if (!watched.Ok)
            this.limits.Reached("watched descriptors", watched.Error);
    }

    public void Disarm(int index)
    {
        Listeners.Listener* listener = this.listeners[index];
        if (!listener->Armed)
            return;
        listener->Armed = false;
        _ = this.loop.Epoll.Forget(listener->Fd).Ok;
    }

    /// <summary>What to do before a socket is closed; false if that needs more time.</summary>
    public bool Leave(int index) => this.listeners[index]->Protocol == IpProtocol.Tcp || this.udp.Leave(index);

    void ArmAll()
    {
        for (int i = 0; i < this.listeners.High; i++)
        {
            if (this.listeners.Exists(i) && this.RuleInForce(i) != null)
                this.Arm(i);
        }
    }
}
