using Pesto.Forwarder.Accepting;
using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Loop;
using Pesto.Forwarder.Reporting;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Commit;

/// <summary>
/// Closes listening sockets and resets no client: first they are quiesced, so that no new connection comes to them; then
/// <see cref="HandshakeDrain"/> lets those under way come to their end; then what is queued on them is served, and they are closed.
/// </summary>
public sealed unsafe class ListenerCloser(EventLoop loop, Tables tables, Listeners listeners, Acceptor acceptor, PortTakeover takeover, Counters counters)
{
    /// <summary>Connections or datagrams taken from a socket's queue before traffic has its turn.</summary>
    const int Stride = 64;

    /// <summary>How long connections that wait on a socket get for room to be served before it is closed: then they are reset.</summary>
    const long ServingMilliseconds = 500;

    /// <summary>Sees to it that no new connection comes to a socket. What is queued on it can still be accepted.</summary>
    public void Quiesce(int index)
    {
        Listeners.Listener* listener = listeners[index];
        acceptor.Disarm(index);
        if (listener->Quiesced)
            return;
        listener->ServedUntil = loop.Now + ServingMilliseconds;
        listener->Quiesced = Sockets.Quiesce(listener->Fd).Ok;
        // Bound to an interface already, it can't be bound to another without CAP_NET_RAW (EPERM): then new connections are left to try
        // again, which they do after a second, and datagrams are taken until there is none for the moment.
        if (!listener->Quiesced && listener->Local.Protocol == IpProtocol.Tcp)
            listener->Quiesced = listener->QuiescedByHops = Sockets.DropNewConnections(listener->Fd, listener->Local.Family).Ok;
    }

    /// <summary>Serves what waits on a socket, a piece at a time, and then closes it: it is closed when the outcome is that all was accepted.</summary>
    public Acceptor.Accepted Close(int index)
    {
        Listeners.Listener* listener = listeners[index];
        Quiesce(index);
        Rule* rule = acceptor.RuleInForce(index);
        if (rule == null && listener->Rule[tables.Shadow] >= 0)
            rule = tables.Rule(listener->Pif, tables.Shadow, listener->Rule[tables.Shadow]);
        if (rule != null)
        {
            Acceptor.Accepted left = acceptor.Accept(index, rule, Stride, isLast: true);
            if (left == Acceptor.Accepted.Full && loop.Now >= listener->ServedUntil)
            {
                acceptor.CountReset(index);
                left = Acceptor.Accepted.All;
            }

            // To a UDP socket that could not be quiesced, datagrams may come for ever.
            if (left == Acceptor.Accepted.Full || (left == Acceptor.Accepted.Some && listener->Quiesced))
                return left;
        }

        if (!acceptor.Leave(index))
            return Acceptor.Accepted.Some;
        (int pif, ListenAddress local) = (listener->Pif, listener->Local);
        bool isRemembered = local.Protocol == IpProtocol.Tcp && takeover.IsRemembered(pif, local.Port);
        listeners.Close(index);
        if (isRemembered)
            takeover.Forget(pif, local.Port);
        counters.SocketsClosed++;
        return Acceptor.Accepted.All;
    }
}
