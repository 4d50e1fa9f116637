using Pesto.Forwarder.Listening;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Tcp;

/// <summary>Makes a socket to a target and begins to connect it, from the address that the target is to see.</summary>
/// <param name="keepalive">As in <see cref="Namespace.SocketSettings"/>.</param>
sealed class TargetSocket(int keepalive)
{
    /// <summary>What came of it.</summary>
    public enum Outcome
    {
        /// <summary>It connects, or has.</summary>
        Connecting,

        /// <summary>No socket is to be had.</summary>
        NoSocket,

        /// <summary>There is no address that the client may come from, which was said and counted.</summary>
        NoSource,

        /// <summary>The socket can't be connected.</summary>
        Failed,
    }

    /// <param name="target">By the client's rule; what was connected to in the end.</param>
    /// <param name="kind">Of the source that was tried last.</param>
    /// <param name="result">The socket, or the error.</param>
    public Outcome Open(Tables.PifEntry pif, in SocketAddress client, ref SocketAddress target, out SocketSource.Kind kind, out Result result)
    {
        SocketSource source = pif.Clients.For(IpProtocol.Tcp, in client, ref target);
        result = default;
        while (true)
        {
            kind = source.Is;
            if (source.Is == SocketSource.Kind.None)
                return Outcome.NoSource;
            result = pif.Connects.Tcp(target.Family);
            if (!result.Ok)
                return Outcome.NoSocket;
            int fd = result.Value;
            if (keepalive != 0)
                _ = Sockets.SetKeepalive(fd, keepalive).Ok;
            pif.Connects.Congestion.ForTarget(fd, target.Address);

            Result bound = pif.Clients.Bind(fd, IpProtocol.Tcp, in source);
            if (source.Address.Port != 0 && bound.Error is Errno.EADDRINUSE or Errno.EACCES)
                bound = pif.Clients.Bind(fd, IpProtocol.Tcp, source.WithAnyPort());
            Result connected = bound.Ok ? Sockets.Connect(fd, in target) : bound;
            if (connected.Ok || connected.Is(Errno.EINPROGRESS))
                return Outcome.Connecting;

            Descriptors.Close(fd);
            result = connected;
            // The connection between just these two ports exists already, or ended a moment ago.
            if (bound.Ok && connected.Is(Errno.EADDRNOTAVAIL) && source.Address.Port != 0)
                source = source.WithAnyPort();
            else if (!bound.Ok)
                source = pif.Clients.Instead(in source, in client, ref target);
            else
                return Outcome.Failed;
        }
    }
}
