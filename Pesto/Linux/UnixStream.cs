using System.Text;

namespace Pesto.Linux;

/// <summary>The client's end of a UNIX stream connection. Every call blocks for a limited time at most and goes on after a signal.</summary>
public sealed unsafe class UnixStream : IDisposable
{
    const int AF_UNIX = 1;
    const int SOCK_STREAM = 1;
    const int SOCK_CLOEXEC = 0x80000;
    const int SOL_SOCKET = 1;
    const int SO_SNDTIMEO = 21;
    const int MSG_NOSIGNAL = 0x4000;
    const int SHUT_WR = 1;
    const short POLLIN = 1;

    /// <summary>The bytes of a path that fit into a sockaddr_un, with the NUL that ends it.</summary>
    const int MostPath = 108;

    readonly int fd;

    UnixStream(int fd) => this.fd = fd;

    /// <summary>Connects to a listening socket.</summary>
    /// <param name="timeout">Milliseconds that connecting may take, and later every send without progress.</param>
    /// <param name="stream">The connection, if there was no error.</param>
    public static Errno Connect(string path, int timeout, out UnixStream? stream)
    {
        stream = null;
        byte* address = stackalloc byte[2 + MostPath];
        new Span<byte>(address, 2 + MostPath).Clear();
        *(ushort*)address = AF_UNIX;
        if (!Encoding.UTF8.TryGetBytes(path, new Span<byte>(address + 2, MostPath - 1), out int length))
            return Errno.ENAMETOOLONG;
        Result socket = Result.Of(Libc.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        if (!socket.Ok)
            return socket.Error;
        UnixStream opened = new(socket.Value);
        long* limit = stackalloc long[2] { timeout / 1000, timeout % 1000 * 1000 };
        _ = Libc.setsockopt(opened.fd, SOL_SOCKET, SO_SNDTIMEO, limit, 16);
        Result connected;
        do
            connected = Result.Of(Libc.connect_wait(opened.fd, address, (uint)(2 + length + 1)));
        while (connected.Is(Errno.EINTR));
        if (connected.Ok)
            stream = opened;
        else
            opened.Dispose();
        return connected.Is(Errno.EAGAIN) ? Errno.ETIMEDOUT : connected.Error;
    }

    /// <summary>Sends everything.</summary>
    public Errno Send(ReadOnlySpan<byte> bytes)
    {
        fixed (byte* start = bytes)
        {
            for (int sent = 0; sent < bytes.Length;)
            {
                Result result = Result.Of(Libc.send_wait(this.fd, start + sent, (nuint)(bytes.Length - sent), MSG_NOSIGNAL));
                if (result.Ok)
                    sent += result.Value;
                else if (!result.Is(Errno.EINTR))
                    return result.Is(Errno.EAGAIN) ? Errno.ETIMEDOUT : result.Error;
            }
        }

        return Errno.None;
    }

    /// <summary>Receives what there is, at least a byte; 0 when the other side has closed, ETIMEDOUT when nothing came in time.</summary>
    /// <param name="timeout">Milliseconds.</param>
    public Result Receive(Span<byte> to, int timeout)
    {
        long end = Environment.TickCount64 + timeout;
        // struct pollfd: descriptor, then the events asked for and those that came, 16 bits each.
        int* wait = stackalloc int[2] { this.fd, POLLIN };
        while (true)
        {
            Result ready = Result.Of(Libc.poll(wait, 1, (int)Math.Max(0, end - Environment.TickCount64)));
            if (ready.Ok && ready.Value == 0)
                return Result.From(Errno.ETIMEDOUT);
            if (!ready.Ok && !ready.Is(Errno.EINTR))
                return ready;
            if (!ready.Ok)
                continue;
            fixed (byte* start = to)
            {
                Result result = Result.Of(Libc.recv_wait(this.fd, start, (nuint)to.Length, 0));
                if (!result.Is(Errno.EINTR))
                    return result;
            }
        }
    }

    /// <summary>Says that nothing more will be sent.</summary>
    public void HalfClose() => _ = Libc.shutdown(this.fd, SHUT_WR);

    public void Dispose() => _ = Libc.close(this.fd);
}
