namespace Pesto.Linux;

/// <summary>Whether a listening socket could be opened.</summary>
public static class Bindable
{
    /// <summary>Binds a socket for a moment, without listening.</summary>
    /// <returns>None, or why not: EADDRINUSE, EACCES, EADDRNOTAVAIL, ENODEV, EMFILE and others.</returns>
    public static Errno Try(bool isTcp, Address address, bool dualStack, ReadOnlySpan<byte> device, ushort port)
    {
        SocketAddress wanted = SocketAddress.Of(address, port);
        Result socket = isTcp ? Sockets.Tcp(wanted.Family) : Sockets.Udp(wanted.Family);
        if (!socket.Ok)
            return socket.Error;
        int fd = socket.Value;
        Result done = isTcp ? Sockets.SetReuseAddress(fd, true) : default;
        if (done.Ok && wanted.Family == SocketAddress.V6)
            done = Sockets.SetV6Only(fd, !dualStack);
        if (done.Ok && !device.IsEmpty)
            done = Sockets.BindToDevice(fd, device);
        if (done.Ok)
            done = Sockets.Bind(fd, in wanted);
        Descriptors.Close(fd);
        return done.Error;
    }
}
