using Pesto.Forwarder.Listening;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Tcp;

/// <summary>Makes a socket to a target and begins to connect it, from the address that the target is to see.</summary>
/// <param name="keepalive">As in <see cref="Namespace.SocketSettings"/>.</param>
sealed class TargetSocket(int keepalive)
{
    /// <summary>Connected, or EINPROGRESS while it is being; else why it can't be.</summary>
    /// <param name="fd">The socket, which the caller closes, or -1: then it is the socket itself that can't be had.</param>
    public Result Open(Tables.PifEntry pif, in SocketSource source, in SocketAddress target, out int fd)
    {
        Result connected = Try(pif, in source, in target, out fd);
        // The connection between just these two ports exists already, or has ended a moment ago: by another port there is none.
        if (connected.Is(Errno.EADDRNOTAVAIL) && source.Address.Port != 0)
        {
            Descriptors.Close(fd);
            connected = Try(pif, source.WithAnyPort(), in target, out fd);
        }

        return connected;
    }

    Result Try(Tables.PifEntry pif, in SocketSource source, in SocketAddress target, out int fd)
    {
        Result socket = pif.Connects.Tcp(target.Family);
        fd = socket.Ok ? socket.Value : -1;
        if (!socket.Ok)
            return socket;
        if (keepalive != 0)
            _ = Sockets.SetKeepalive(fd, keepalive).Ok;
        if (pif.Connects.Paces(fd) && target.Address.IsLoopback)
            _ = CongestionControl.Reno.ApplyTo(fd).Ok;
        Result bound = pif.Clients.Bind(fd, IpProtocol.Tcp, in source);
        if (source.Address.Port != 0 && bound.Error is Errno.EADDRINUSE or Errno.EACCES)
            bound = pif.Clients.Bind(fd, IpProtocol.Tcp, source.WithAnyPort());
        return bound.Ok ? Sockets.Connect(fd, in target) : bound;
    }
}
