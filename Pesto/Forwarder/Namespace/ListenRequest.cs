using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Namespace;

/// <summary>A listening socket to be opened, and then what became of it. Opening touches nothing else, so any thread may do it.</summary>
public struct ListenRequest
{
    const int Backlog = 4096;

    /// <summary>What a listening UDP socket is to hold for all of its clients, in bytes, while the loop is busy elsewhere.</summary>
    const int DatagramBuffer = 4 * 1024 * 1024;

    /// <summary>What it is to be bound to.</summary>
    public ListenAddress Local;

    /// <summary>Set SO_REUSEPORT while it is bound: another socket of ours has the port, and the option too.</summary>
    public bool Handover;

    /// <summary>The socket is bound, to an interface that does not exist if it is IPv4, and does not listen.</summary>
    public bool OnlyBind;

    public SocketSettings Settings;

    /// <summary>The index of the interface to which the socket is bound, or 0.</summary>
    public uint InterfaceIndex;

    /// <summary>
    /// What connections from elsewhere are to have, where the socket has something better for those from this host: see
    /// <see cref="CongestionControl"/>. Else none.
    /// </summary>
    public CongestionControl FromElsewhere;

    /// <summary>The socket, listening, or why there is none.</summary>
    public Result Outcome;

    public void Open()
    {
        Result socket = Local.Protocol == IpProtocol.Tcp ? Sockets.Tcp(Local.Family) : Sockets.Udp(Local.Family);
        if (!socket.Ok)
        {
            Outcome = socket;
            return;
        }

        Result ready = Prepare(socket.Value);
        if (ready.Ok)
        {
            Outcome = socket;
            return;
        }

        Descriptors.Close(socket.Value);
        Outcome = ready;
    }

    Result Prepare(int fd)
    {
        Result done = Local.Protocol == IpProtocol.Tcp ? Sockets.SetReuseAddress(fd, true) : default;
        if (done.Ok && Handover)
            done = Sockets.SetReusePort(fd, true);
        if (done.Ok && Local.Family == SocketAddress.V6)
            done = Sockets.SetV6Only(fd, !Local.IsDualStack);
        if (done.Ok && Settings.FreeBind)
            done = Sockets.SetFreeBind(fd, Local.Family);
        if (done.Ok && !Local.Interface.IsEmpty)
            done = Sockets.BindToDevice(fd, Local.Interface.Bytes);
        InterfaceIndex = Local.Interface.IsEmpty ? 0 : Sockets.InterfaceIndex(fd, Local.Interface.Bytes);
        // An IPv6 address can't be bound together with an interface that does not exist.
        if (done.Ok && OnlyBind && Local.Family == SocketAddress.V4)
            done = Sockets.BindNowhere(fd);
        if (!done.Ok)
            return done;

        if (Local.Protocol == IpProtocol.Udp)
        {
            // Before it is bound: datagrams come from then on.
            Sockets.SetBuffers(fd, DatagramBuffer);
            _ = Sockets.SetSegmentsReceived(fd).Ok;
            if (Local.Address.IsWildcard)
                done = Sockets.SetPacketInfo(fd, Local.Family);
            if (!done.Ok)
                return done;
        }

        uint scope = Local.Address.IsLinkLocal ? InterfaceIndex : 0;
        SocketAddress address = SocketAddress.Of(Local.Address, Local.Port, scope);
        done = Sockets.Bind(fd, in address);
        if (!done.Ok || OnlyBind || Local.Protocol == IpProtocol.Udp)
            return done;

        // Connections that are accepted have this from their listening socket: the calls are saved for each.
        done = Sockets.SetNoDelay(fd);
        if (done.Ok && Settings.Keepalive != 0)
            done = Sockets.SetKeepalive(fd, Settings.Keepalive);
        FromElsewhere = CongestionChoice.ForListening(fd);
        return done.Ok ? Sockets.Listen(fd, Backlog) : done;
    }
}
