using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Namespace;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Commit;

/// <summary>
/// Binds a socket to a port at which another of ours still listens, with an address that overlaps. Both must listen at the same time, or
/// clients in between would be refused: for the moment of the bind both have SO_REUSEPORT, and no longer, so that no other process can share.
/// </summary>
public sealed unsafe class PortTakeover(Tables tables, Listeners listeners)
{
    // Addresses on which nothing listens: 127.255.255.254, and one of IPv6's discard-only prefix (RFC 6666).
    static readonly Address Unused4 = Address.FromV4(0x7fff_fffe);
    static readonly Address Unused6 = new(0x0100_0000_0000_0000, 1);

    /// <summary>Tries again to open a socket whose port is taken (EADDRINUSE), if it is by a socket of ours.</summary>
    public void TakeOver(int pif, ref ListenRequest request)
    {
        int old = 0;
        for (int i = listeners.FirstOnPort(pif, request.Local.Protocol, request.Local.Port); i >= 0; i = listeners.NextOnPort(i))
        {
            if (listeners[i]->Local.Overlaps(in request.Local) && Sockets.SetReusePort(listeners[i]->Fd, true).Ok)
                old++;
        }

        if (old == 0)
            return;
        request.Handover = true;
        tables.Pifs[pif].Listens.Listen(new Span<ListenRequest>(ref request));
        if (request.Outcome.Ok)
            _ = Sockets.SetReusePort(request.Outcome.Value, false).Ok;
        for (int i = listeners.FirstOnPort(pif, request.Local.Protocol, request.Local.Port); i >= 0; i = listeners.NextOnPort(i))
        {
            Listeners.Listener* listener = listeners[i];
            if (!listener->Local.Overlaps(in request.Local))
                continue;
            _ = Sockets.SetReusePort(listener->Fd, false).Ok;
            listener->Handover |= request.Outcome.Ok;
        }
    }

    /// <summary>Whether there was a takeover of this TCP port that the kernel still remembers.</summary>
    public bool IsRemembered(int pif, ushort port)
    {
        for (int i = listeners.FirstOnPort(pif, IpProtocol.Tcp, port); i >= 0; i = listeners.NextOnPort(i))
        {
            if (listeners[i]->Handover)
                return true;
        }

        return false;
    }

    /// <summary>
    /// Ends what a takeover leaves behind. The kernel keeps with a TCP port (fastreuseport of its bind bucket) that the last socket bound to it
    /// had SO_REUSEPORT, and lets another socket of the same user with that option be bound, though none of those that are bound has it any
    /// more. Binding a socket without the option clears that, so one is bound and closed that is in conflict with none that is there. Next to
    /// the wildcards of both families there is no such socket: there processes of the same user, and of no other, can share the port until
    /// one of the sockets is closed.
    /// </summary>
    public void Forget(int pif, ushort port)
    {
        Span<ListenRequest> requests =
        [
            new() { Local = new(IpProtocol.Tcp, Unused4, IsDualStack: false, default, port), OnlyBind = true },
            new() { Local = new(IpProtocol.Tcp, Unused6, IsDualStack: false, default, port), OnlyBind = true, Settings = new(FreeBind: true, Keepalive: 0) },
        ];
        tables.Pifs[pif].Listens.Listen(requests);
        bool forgotten = false;
        foreach (ref ListenRequest request in requests)
        {
            if (!request.Outcome.Ok)
                continue;
            Descriptors.Close(request.Outcome.Value);
            forgotten = true;
        }

        // If it is remembered still, the next socket of the port to be closed makes room for another try.
        for (int i = listeners.FirstOnPort(pif, IpProtocol.Tcp, port); i >= 0; i = listeners.NextOnPort(i))
        {
            if (listeners[i]->Rule[tables.Active] >= 0)
                listeners[i]->Handover = !forgotten;
        }
    }
}
