using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Listening;

/// <summary>
/// Decides from which address a client comes to its target. Programs trust 127.0.0.1 and ::1, so nobody from another host may come from
/// there, unless the user asked for just that (CVE-2021-20199).
/// </summary>
public sealed class ClientAddress(ClientAddressMode mode, uint mark)
{
    /// <summary>For clients whose address is nobody's business: those of the container, and everybody where there is no container.</summary>
    public static ClientAddress Unchanged { get; } = new(ClientAddressMode.Loopback, 0);

    /// <summary>Whether <see cref="For"/> needs to know who the client is.</summary>
    public bool Matters => mode != ClientAddressMode.Loopback;

    /// <summary>The source of a new socket to a target. To be asked once for each flow.</summary>
    /// <param name="target">By the client's rule; becomes an address of the other family where only that one has a source to offer.</param>
    public SocketSource For(IpProtocol protocol, in SocketAddress client, ref SocketAddress target)
    {
        if (!Matters || client.Address.IsLoopback)
            return SocketSource.KernelsChoice;
        if (client.Family == target.Family || (client.Address.IsV4 && target.Family == SocketAddress.V4))
        {
            // In the container the only interface that leads to the client is lo.
            const uint LoopbackInterface = 1;
            return new(SocketSource.Kind.Client, SocketAddress.Of(client.Address, client.Port, client.Address.IsLinkLocal ? LoopbackInterface : 0));
        }

        return SocketSource.None;
    }

    /// <summary>
    /// Binds a new socket to its source. EADDRINUSE: the port is taken, and EACCES: it is not allowed; then <see cref="SocketSource.WithAnyPort"/>
    /// can be tried with the same socket. EPERM: sockets may not be transparent or marked here.
    /// </summary>
    public Result Bind(int fd, IpProtocol protocol, in SocketSource source)
    {
        Result done = default;
        SocketAddress address = source.Address;
        if (source.Is == SocketSource.Kind.KernelsChoice)
            return done;
        if (source.Is == SocketSource.Kind.Client)
        {
            done = Sockets.SetTransparent(fd, address.Family);
            if (done.Ok)
                done = Sockets.SetMark(fd, mark);
            // One client's port may come by two rules to one target, and connections that have ended keep theirs for a while.
            if (done.Ok)
                done = Sockets.SetReuseAddress(fd, true);
        }

        // TCP finds a port when it connects, then one may serve several connections, to different targets.
        if (done.Ok && address.Port == 0 && protocol == IpProtocol.Tcp)
            done = Sockets.SetBindAddressNoPort(fd);
        return done.Ok ? Sockets.Bind(fd, in address) : done;
    }
}
