using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Pesto.Linux;

/// <summary>Sockets, by descriptor. All are made close-on-exec; those of the loop are non-blocking.</summary>
public static unsafe class Sockets
{
    const ushort Unix = 1;
    const int Stream = 1, Datagram = 2, NonBlocking = 0x800, CloseOnExec = 0x80000;
    const int NoSignal = 0x4000, DontWait = 0x40, Peek = 2;
    const int SolSocket = 1, IpProtoIp = 0, IpProtoTcp = 6, IpProtoUdp = 17, IpProtoIpv6 = 41;
    const int ReuseAddress = 2, SocketError = 4, KeepAlive = 9, ReceiveLowWater = 18, UrgentInline = 10, LingerOption = 13, ReusePortOption = 15;
    const int PeerCredentials = 17, BindToDeviceOption = 25, BindToInterfaceIndex = 62;
    const int SendBuffer = 7, ReceiveBuffer = 8, SendBufferForce = 32, ReceiveBufferForce = 33;
    const int IpPacketInfo = 8, Ipv6ReceivePacketInfo = 49, UdpSegment = 103, UdpGro = 104;
    const int TcpNoDelay = 1, TcpKeepIdle = 4, TcpKeepInterval = 5, TcpKeepCount = 6, V6OnlyOption = 26, IpFreeBind = 15, Ipv6FreeBind = 78;
    const int IpTransparent = 19, Ipv6Transparent = 75, IpBindAddressNoPort = 24, MarkOption = 36;
    const int IpReceiveErrors = 11, Ipv6ReceiveErrors = 25, ErrorQueue = 0x2000;
    const int IpMinTtl = 21, Ipv6MinHopCount = 73;

    public const int ShutRead = 0, ShutWrite = 1;

    public static Result Tcp(ushort family) => Result.Of(Libc.socket(family, Stream | NonBlocking | CloseOnExec, 0));

    public static Result Udp(ushort family) => Result.Of(Libc.socket(family, Datagram | NonBlocking | CloseOnExec, 0));

    public static Result UnixStream(bool blocking = false) => Result.Of(Libc.socket(Unix, Stream | CloseOnExec | (blocking ? 0 : NonBlocking), 0));

    public static Result UnixDatagram() => Result.Of(Libc.socket(Unix, Datagram | CloseOnExec | NonBlocking, 0));

    public static Result Bind(int fd, in SocketAddress address)
    {
        fixed (SocketAddress* p = &address)
            return Result.Of(Libc.bind(fd, p, address.Length));
    }

    public static Result Connect(int fd, in SocketAddress address)
    {
        fixed (SocketAddress* p = &address)
            return Result.Of(Libc.connect(fd, p, address.Length));
    }

    public static Result Listen(int fd, int backlog) => Result.Of(Libc.listen(fd, backlog));

    /// <summary>Accepts one connection, non-blocking, and gives its remote address.</summary>
    public static Result Accept(int fd, out SocketAddress peer)
    {
        fixed (SocketAddress* p = &peer)
        {
            uint length = 28;
            Result result = Result.Of(Libc.accept4(fd, p, &length, NonBlocking | CloseOnExec));
            p->Length = length;
            return result;
        }
    }

    /// <summary>Where the other end of a connection is; ENOTCONN if it has been reset.</summary>
    public static Result PeerAddress(int fd, out SocketAddress address)
    {
        fixed (SocketAddress* p = &address)
        {
            uint length = SocketAddress.MostBytes;
            Result result = Result.Of(Libc.getpeername(fd, p, &length));
            p->Length = length;
            return result;
        }
    }

    /// <summary>Where this end of a connection is: for one that was accepted, the address that the client spoke to.</summary>
    public static Result LocalAddress(int fd, out SocketAddress address)
    {
        fixed (SocketAddress* p = &address)
        {
            uint length = SocketAddress.MostBytes;
            Result result = Result.Of(Libc.getsockname(fd, p, &length));
            p->Length = length;
            return result;
        }
    }

    /// <summary>Accepts one connection, non-blocking.</summary>
    public static Result Accept(int fd) => Result.Of(Libc.accept4(fd, null, null, NonBlocking | CloseOnExec));

    /// <summary>Receives without waiting; 0 is the end of the stream.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Result Receive(int fd, byte* buffer, int length) => Result.Of(Libc.recv(fd, buffer, (nuint)length, DontWait));

    /// <summary>Like <see cref="Receive(int, byte*, int)"/>, but leaves the bytes in the socket.</summary>
    public static Result PeekAt(int fd, byte* buffer, int length) => Result.Of(Libc.recv(fd, buffer, (nuint)length, DontWait | Peek));

    /// <summary>Sends without waiting and without SIGPIPE; may take less than all.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Result Send(int fd, byte* buffer, int length) => Result.Of(Libc.send(fd, buffer, (nuint)length, DontWait | NoSignal));

    /// <summary>Sends a datagram without waiting.</summary>
    /// <param name="to">Null on a connected socket.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Result SendTo(int fd, byte* buffer, int length, SocketAddress* to) =>
        Result.Of(Libc.sendto(fd, buffer, (nuint)length, DontWait | NoSignal, to, to == null ? 0 : to->Length));

    /// <summary>Waits until something is there or the socket's receive time-out ends (EAGAIN).</summary>
    public static Result ReceiveWaiting(int fd, Span<byte> buffer)
    {
        fixed (byte* p = buffer)
        {
            Result result;
            do
                result = Result.Of(Libc.recv_wait(fd, p, (nuint)buffer.Length, 0));
            while (result.Is(Errno.EINTR));
            return result;
        }
    }

    /// <summary>Waits until at least one byte is taken.</summary>
    public static Result SendWaiting(int fd, ReadOnlySpan<byte> bytes)
    {
        fixed (byte* p = bytes)
        {
            Result result;
            do
                result = Result.Of(Libc.send_wait(fd, p, (nuint)bytes.Length, NoSignal));
            while (result.Is(Errno.EINTR));
            return result;
        }
    }

    public static Result Shutdown(int fd, int how) => Result.Of(Libc.shutdown(fd, how));

    public static Result SetReuseAddress(int fd, bool on) => Set(fd, SolSocket, ReuseAddress, on ? 1 : 0);

    public static Result SetReusePort(int fd, bool on) => Set(fd, SolSocket, ReusePortOption, on ? 1 : 0);

    public static Result SetNoDelay(int fd) => Set(fd, IpProtoTcp, TcpNoDelay, 1);

    /// <summary>
    /// Asks a peer that has been silent for so many seconds (1 to 32767) whether it is still there, and again four times in as
    /// long; after that the connection fails with ETIMEDOUT. Accepted sockets have it from the listening one.
    /// </summary>
    public static Result SetKeepalive(int fd, int seconds)
    {
        const int Questions = 4;
        Result done = Set(fd, IpProtoTcp, TcpKeepIdle, seconds);
        if (done.Ok)
            done = Set(fd, IpProtoTcp, TcpKeepInterval, Math.Max(1, seconds / Questions));
        if (done.Ok)
            done = Set(fd, IpProtoTcp, TcpKeepCount, Questions);
        return done.Ok ? Set(fd, SolSocket, KeepAlive, 1) : done;
    }

    /// <summary>Has events for what was received wait for so many bytes, or the end of the stream.</summary>
    public static Result SetReceiveLowWater(int fd, int bytes) => Set(fd, SolSocket, ReceiveLowWater, bytes);

    /// <summary>Has urgent data read in its place in the stream.</summary>
    public static Result SetUrgentInline(int fd) => Set(fd, SolSocket, UrgentInline, 1);

    public static Result SetV6Only(int fd, bool on) => Set(fd, IpProtoIpv6, V6OnlyOption, on ? 1 : 0);

    /// <summary>Allows an address that this host does not have (yet).</summary>
    public static Result SetFreeBind(int fd, ushort family) =>
        family == SocketAddress.V4 ? Set(fd, IpProtoIp, IpFreeBind, 1) : Set(fd, IpProtoIpv6, Ipv6FreeBind, 1);

    /// <summary>
    /// Allows to bind to an address of another host, and to get what is sent to it. Takes CAP_NET_RAW or CAP_NET_ADMIN over the socket's
    /// network namespace (EPERM).
    /// </summary>
    public static Result SetTransparent(int fd, ushort family) =>
        family == SocketAddress.V4 ? Set(fd, IpProtoIp, IpTransparent, 1) : Set(fd, IpProtoIpv6, Ipv6Transparent, 1);

    /// <summary>
    /// Marks what is sent, for rules of routing. Takes CAP_NET_ADMIN over the socket's network namespace, or, since Linux 5.17, CAP_NET_RAW (EPERM).
    /// </summary>
    public static Result SetMark(int fd, uint mark) => Set(fd, SolSocket, MarkOption, (int)mark);

    /// <summary>Has a TCP socket that is bound to an address and no port choose its port when it connects.</summary>
    public static Result SetBindAddressNoPort(int fd) => Set(fd, IpProtoIp, IpBindAddressNoPort, 1);

    /// <summary>Sets both buffers to so many bytes; without CAP_NET_ADMIN, to at most net.core.rmem_max and wmem_max.</summary>
    public static void SetBuffers(int fd, int bytes)
    {
        if (!Set(fd, SolSocket, ReceiveBufferForce, bytes).Ok)
            _ = Set(fd, SolSocket, ReceiveBuffer, bytes).Ok;
        if (!Set(fd, SolSocket, SendBufferForce, bytes).Ok)
            _ = Set(fd, SolSocket, SendBuffer, bytes).Ok;
    }

    /// <summary>Has each datagram come with the address that it was sent to.</summary>
    public static Result SetPacketInfo(int fd, ushort family)
    {
        Result v4 = Set(fd, IpProtoIp, IpPacketInfo, 1);
        // A dual-stack socket has both: for IPv4, only IPv4's own form tells what to answer from when the datagram was a broadcast.
        return family == SocketAddress.V6 ? Set(fd, IpProtoIpv6, Ipv6ReceivePacketInfo, 1) : v4;
    }

    /// <summary>Has a UDP socket that is not connected learn of ICMP errors, by the next call's failure and by <see cref="NextError"/>.</summary>
    public static Result SetErrorsReceived(int fd, ushort family) =>
        family == SocketAddress.V4 ? Set(fd, IpProtoIp, IpReceiveErrors, 1) : Set(fd, IpProtoIpv6, Ipv6ReceiveErrors, 1);

    /// <summary>Takes the first error out of a socket's queue, which holds its buffer's memory; EAGAIN if it is empty.</summary>
    public static Errno NextError(int fd)
    {
        const int ControlSize = 128;
        byte* control = stackalloc byte[ControlSize];
        MessageHeader.Inner message = new() { Control = control, ControlLength = ControlSize };
        Result received = Result.Of(Libc.recvmsg(fd, &message, ErrorQueue | DontWait));
        if (!received.Ok)
            return received.Error;
        // Of the control messages the only one, or the last, is struct sock_extended_err, which begins with the error.
        ControlHeader* header = (ControlHeader*)control;
        return message.ControlLength < (nuint)(sizeof(ControlHeader) + sizeof(uint)) ? Errno.None : (Errno)(*(uint*)(header + 1));
    }

    /// <summary>Allows the kernel to hand over segments, datagrams of one size, as one. Fails (ENOPROTOOPT) before Linux 5.0: then they come one by one.</summary>
    public static Result SetSegmentsReceived(int fd) => Set(fd, IpProtoUdp, UdpGro, 1);

    /// <summary>Whether the kernel can send segments, datagrams of one size, as one: since Linux 4.18.</summary>
    public static bool CanSendSegments(int fd)
    {
        int value;
        uint length = sizeof(int);
        return Libc.getsockopt(fd, IpProtoUdp, UdpSegment, &value, &length) == 0;
    }

    /// <summary>Only traffic of this interface, by name as bytes without NUL; free for ordinary users since Linux 5.7.</summary>
    public static Result BindToDevice(int fd, ReadOnlySpan<byte> name)
    {
        fixed (byte* p = name)
            return Result.Of(Libc.setsockopt(fd, SolSocket, BindToDeviceOption, p, (uint)name.Length));
    }

    /// <summary>The index of the interface that a socket is bound to; 0 if to none, or before Linux 5.1.</summary>
    public static uint BoundInterface(int fd)
    {
        uint index = 0, length = sizeof(uint);
        return Libc.getsockopt(fd, SolSocket, BindToInterfaceIndex, &index, &length) == 0 ? index : 0;
    }

    /// <summary>
    /// Makes a listening socket match no new connection while what queued on it can still be accepted: it is bound to
    /// an interface that does not exist. The next best socket, if there is one, gets the new connections.
    /// An ordinary user can't do this to a socket that is bound to an interface (EPERM).
    /// </summary>
    public static Result Quiesce(int fd) => Set(fd, SolSocket, BindToInterfaceIndex, int.MaxValue);

    /// <summary>Binds a new socket to an interface that does not exist, and that is not the one of <see cref="Quiesce"/>.</summary>
    public static Result BindNowhere(int fd) => Set(fd, SolSocket, BindToInterfaceIndex, int.MaxValue - 1);

    /// <summary>
    /// Makes a listening TCP socket ignore new connections, so that the peer tries again after a second: only packets that
    /// no router has handed on, and that were sent to go as far as possible, get to it, which hardly any system does. What
    /// queued on it can still be accepted, and handshakes that are under way end well, but connections made so have the
    /// same limit: see <see cref="AcceptFromAfar"/>. Free for ordinary users, unlike a filter.
    /// </summary>
    public static Result DropNewConnections(int fd, ushort family) => SetLeastHops(fd, family, 255);

    /// <summary>Has an accepted connection take packets from any distance again.</summary>
    public static void AcceptFromAfar(int fd, ushort family) => _ = SetLeastHops(fd, family, 0).Ok;

    static Result SetLeastHops(int fd, ushort family, int hops)
    {
        Result v4 = Set(fd, IpProtoIp, IpMinTtl, hops);
        return v4.Ok && family == SocketAddress.V6 ? Set(fd, IpProtoIpv6, Ipv6MinHopCount, hops) : v4;
    }

    /// <summary>How many connections wait on a listening TCP socket to be accepted.</summary>
    public static int AcceptQueueLength(int fd)
    {
        // struct tcp_info, of which the first 32 bytes are enough: of a listening socket, tcpi_unacked is the length of its queue.
        const int TcpInfo = 11, Unacked = 6;
        uint* info = stackalloc uint[8];
        uint length = 32;
        return Libc.getsockopt(fd, IpProtoTcp, TcpInfo, info, &length) == 0 ? (int)info[Unacked] : 0;
    }

    /// <summary>Closing then discards what is unsent and resets the peer, instead of an orderly end.</summary>
    public static Result SetResetOnClose(int fd)
    {
        Linger linger = new() { On = 1, Seconds = 0 };
        return Result.Of(Libc.setsockopt(fd, SolSocket, LingerOption, &linger, (uint)sizeof(Linger)));
    }

    /// <summary>The error that waits on a socket, which is thereby cleared.</summary>
    public static Errno PendingError(int fd)
    {
        int error = 0;
        uint length = sizeof(int);
        Result result = Result.Of(Libc.getsockopt(fd, SolSocket, SocketError, &error, &length));
        return result.Ok ? (Errno)error : result.Error;
    }

    /// <summary>SO_PEERCRED: the process at the other end of a UNIX socket when it connected or began to listen, with ids as this user namespace has them.</summary>
    public static Result Peer(int fd, out PeerIds ids)
    {
        fixed (PeerIds* p = &ids)
        {
            uint length = (uint)sizeof(PeerIds);
            return Result.Of(Libc.getsockopt(fd, SolSocket, PeerCredentials, p, &length));
        }
    }

    public static Result SetSendTimeout(int fd, int milliseconds) => SetTimeout(fd, 21, milliseconds);

    static Result SetTimeout(int fd, int name, int milliseconds)
    {
        long* time = stackalloc long[2] { milliseconds / 1000, milliseconds % 1000 * 1000L };
        return Result.Of(Libc.setsockopt(fd, SolSocket, name, time, 16));
    }

    static Result Set(int fd, int level, int name, int value) => Result.Of(Libc.setsockopt(fd, level, name, &value, sizeof(int)));

    /// <summary>The index of an interface, or 0 if there is none of this name.</summary>
    /// <param name="fd">Any socket of the namespace: if_nametoindex(3) would make one of a kind that the sandbox forbids.</param>
    public static uint InterfaceIndex(int fd, ReadOnlySpan<byte> name)
    {
        const nuint GetIndex = 0x8933;
        const int MostBytes = 16;
        // struct ifreq: the name, NUL-terminated, then the answer.
        byte* request = stackalloc byte[40];
        new Span<byte>(request, 40).Clear();
        if (name.Length >= MostBytes)
            return 0;
        name.CopyTo(new Span<byte>(request, MostBytes));
        return Libc.ioctl(fd, GetIndex, request) == 0 ? *(uint*)(request + MostBytes) : 0;
    }

    [StructLayout(LayoutKind.Sequential)]
    struct Linger
    {
        public int On;
        public int Seconds;
    }

    /// <summary>struct ucred.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct PeerIds
    {
        public int Pid;
        public uint User;
        public uint Group;
    }
}
