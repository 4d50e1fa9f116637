using Pesto.Forwarder.Listening;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Udp;

/// <summary>
/// A flow's socket to its target. Where it has a source of its own it is not connected: the target's kernel chooses the address from which a
/// reply to that source comes by the route to the source, and that is often another than the one to which the request went. Then the
/// sender of whatever comes is looked at, see <see cref="Accepts"/>.
/// </summary>
public struct UdpTargetSocket
{
    public int Fd;

    /// <summary>Where requests are sent to.</summary>
    public SocketAddress Target;

    /// <summary>Only the target can send to it, and nothing needs to be said or checked.</summary>
    public bool IsConnected;

    /// <summary>It has the client's own address, by which the target's side has noted where replies go.</summary>
    public bool IsTransparent;

    /// <summary>The address that it is bound to if others than this namespace's programs can send to that; else "::".</summary>
    Address _reachable;

    /// <summary>Opens one, to be watched and closed by the caller.</summary>
    /// <param name="target">By the client's rule; becomes what is sent to.</param>
    /// <returns>
    /// The descriptor. EADDRNOTAVAIL: there is no address from which the client may come, which was said and counted. EAGAIN: no local port is
    /// left. EMFILE and its like, ENETUNREACH and its like.
    /// </returns>
    public static Result Open(Tables.PifEntry pif, in SocketAddress client, in SocketAddress target, int bufferSize, out UdpTargetSocket opened)
    {
        opened = new() { Target = target };
        SocketSource source = pif.Clients.For(IpProtocol.Udp, in client, ref opened.Target);
        while (source.Is != SocketSource.Kind.None)
        {
            Result socket = pif.Connects.Udp(opened.Target.Family);
            if (!socket.Ok)
                return socket;
            opened.Fd = socket.Value;
            Sockets.SetBuffers(opened.Fd, bufferSize);
            _ = Sockets.SetSegmentsReceived(opened.Fd).Ok;
            Result ready = opened.Prepare(pif.Clients, in source);
            if (ready.Ok)
                return socket;
            Descriptors.Close(opened.Fd);
            if (source.Is == SocketSource.Kind.KernelsChoice)
                return ready;
            source = pif.Clients.Instead(in source, in client, ref opened.Target);
        }

        return Result.From(Errno.EADDRNOTAVAIL);
    }

    Result Prepare(ClientAddress clients, in SocketSource source)
    {
        IsConnected = source.Is == SocketSource.Kind.KernelsChoice;
        IsTransparent = source.Is == SocketSource.Kind.Client;
        if (IsConnected)
            return Sockets.Connect(Fd, in Target);
        _reachable = !IsTransparent || clients.IsHere(source.Address.Address) ? source.Address.Address : Address.Any;
        Result done = Sockets.SetErrorsReceived(Fd, Target.Family);
        if (done.Ok)
            done = clients.Bind(Fd, IpProtocol.Udp, in source);
        // The client talks to another target too, a program of the container's has the port, or it is not allowed.
        return source.Address.Port != 0 && done.Error is Errno.EADDRINUSE or Errno.EACCES
            ? clients.Bind(Fd, IpProtocol.Udp, source.WithAnyPort())
            : done;
    }

    /// <summary>Whether a sender can be the target: then it has the target's port, and, where others could send too, one of the addresses that the target's kernel can have chosen.</summary>
    public readonly bool Accepts(in SocketAddress sender) =>
        IsConnected || (sender.Port == Target.Port && (_reachable.IsAny || sender.Address == _reachable || sender.Address == Target.Address));
}
