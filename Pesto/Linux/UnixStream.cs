namespace Pesto.Linux;

/// <summary>The client's end of a UNIX stream connection. Every call blocks for a limited time at most and goes on after a signal.</summary>
public sealed class UnixStream : IDisposable
{
    readonly int _fd;

    /// <summary>Takes over a connection.</summary>
    internal UnixStream(int fd) => _fd = fd;

    /// <summary>Connects to a listening socket.</summary>
    /// <param name="timeout">Milliseconds that connecting may take, and later every send without progress.</param>
    /// <param name="stream">The connection, if there was no error.</param>
    public static Errno Connect(string path, int timeout, out UnixStream? stream)
    {
        stream = null;
        if (!UnixAddress.TryCreate(path, out UnixAddress address))
            return path.Length == 0 ? Errno.ENOENT : Errno.ENAMETOOLONG;
        Result socket = Sockets.UnixStream(blocking: true);
        if (!socket.Ok)
            return socket.Error;
        UnixStream opened = new(socket.Value);
        _ = Sockets.SetSendTimeout(opened._fd, timeout);
        Result connected = address.Connect(opened._fd);
        if (connected.Ok)
            stream = opened;
        else
            opened.Dispose();
        return connected.Is(Errno.EAGAIN) ? Errno.ETIMEDOUT : connected.Error;
    }

    /// <summary>Sends everything.</summary>
    public Errno Send(ReadOnlySpan<byte> bytes)
    {
        while (!bytes.IsEmpty)
        {
            Result sent = Sockets.SendWaiting(_fd, bytes);
            if (!sent.Ok)
                return sent.Is(Errno.EAGAIN) ? Errno.ETIMEDOUT : sent.Error;
            bytes = bytes[sent.Value..];
        }

        return Errno.None;
    }

    /// <summary>Receives what there is, at least a byte; 0 when the other side has closed, ETIMEDOUT when nothing came in time.</summary>
    /// <param name="timeout">Milliseconds.</param>
    public Result Receive(Span<byte> to, int timeout)
    {
        return Descriptors.WaitReadable(_fd, timeout) ? Sockets.ReceiveWaiting(_fd, to) : Result.From(Errno.ETIMEDOUT);
    }

    /// <summary>Says that nothing more will be sent.</summary>
    public void HalfClose() => _ = Sockets.Shutdown(_fd, Sockets.ShutWrite);

    /// <summary>The process that called listen(2) at the other end, or 0; it may have ended, and its id be another's.</summary>
    public int PeerProcess => Sockets.Peer(_fd, out Sockets.PeerIds peer).Ok ? peer.Pid : 0;

    public void Dispose() => _ = Libc.close(_fd);
}
