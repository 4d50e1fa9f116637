using Pesto.Linux;

namespace Pesto.Bench.Traffic;

/// <summary>Sockets as both ends of the traffic open them.</summary>
static unsafe class Socket
{
    /// <summary>The most events that are taken from epoll at once.</summary>
    public const int MostEvents = 512;

    public static int Listen(ushort port)
    {
        int fd = Bound(Kernel.SOCK_STREAM | Kernel.SOCK_NONBLOCK, port);
        Result.Of(Libc.listen(fd, 4096)).OrThrow("listen");
        return fd;
    }

    public static int BoundDatagram(ushort port) => Bound(Kernel.SOCK_DGRAM, port);

    static int Bound(int type, ushort port)
    {
        int fd = Result.Of(Libc.socket(SocketAddress.V4, type | Kernel.SOCK_CLOEXEC, 0)).OrThrow("socket");
        Set(fd, Kernel.SOL_SOCKET, Kernel.SO_REUSEADDR, 1);
        SocketAddress address = SocketAddress.Of(Address.AnyV4, port);
        Result.Of(Libc.bind(fd, &address, address.Length)).OrThrow($"bind to port {port}");
        return fd;
    }

    /// <summary>A connected socket, by a call that waits.</summary>
    public static int Connected(int type, SocketAddress to)
    {
        int fd = Result.Of(Libc.socket(to.Family, type | Kernel.SOCK_CLOEXEC, 0)).OrThrow("socket");
        Result.Of(Libc.connect_wait(fd, &to, to.Length)).OrThrow($"connect to {to.Address}:{to.Port}");
        if (type == Kernel.SOCK_STREAM)
            Set(fd, Kernel.IPPROTO_TCP, Kernel.TCP_NODELAY, 1);
        return fd;
    }

    public static void Set(int fd, int level, int name, int value) =>
        Result.Of(Libc.setsockopt(fd, level, name, &value, sizeof(int))).OrThrow($"setsockopt {level} {name}");

    /// <summary>Sends all of it, waiting for room; false if the connection is gone.</summary>
    public static bool SendAll(int fd, byte* buffer, int length)
    {
        while (length > 0)
        {
            int n = (int)Libc.send_wait(fd, buffer, (nuint)length, Kernel.MSG_NOSIGNAL);
            if (n <= 0)
                return false;
            buffer += n;
            length -= n;
        }

        return true;
    }
}
