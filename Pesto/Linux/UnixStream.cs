namespace Pesto.Linux;

/// <summary>The client's end of a UNIX stream connection. Every call blocks for a limited time at most and goes on after a signal.</summary>
public sealed class UnixStream : IDisposable
{
    readonly int _fd;

    /// <summary>Takes over a connection.</summary>
    internal UnixStream(int fd) => _fd = fd;

    /// <summary>Connects to a listening socket; ETIMEDOUT if its queue is full for so long.</summary>
    /// <param name="timeout">Milliseconds that connecting may take.</param>
    /// <param name="stream">The connection, if there was no error.</param>
    public static Errno Connect(string path, int timeout, out UnixStream? stream)
    {
        stream = null;
        if (!UnixAddress.TryCreate(path, out UnixAddress address))
            return path.Length == 0 ? Errno.ENOENT : Errno.ENAMETOOLONG;
        // Blocking, since nothing tells when a queue that was full has room again.
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

    /// <summary>Sends everything; ETIMEDOUT if the other side has not taken all of it in time.</summary>
    /// <param name="deadline">In milliseconds of <see cref="Clock.Milliseconds"/>.</param>
    public unsafe Errno Send(ReadOnlySpan<byte> bytes, long deadline)
    {
        fixed (byte* start = bytes)
        {
            for (int sent = 0; sent < bytes.Length;)
            {
                Result result = Sockets.Send(_fd, start + sent, bytes.Length - sent);
                if (result.Ok)
                    sent += result.Value;
                else if (result.Is(Errno.EAGAIN) && !Descriptors.WaitWritable(_fd, Left(deadline)))
                    return Errno.ETIMEDOUT;
                else if (!result.Is(Errno.EAGAIN) && !result.Is(Errno.EINTR))
                    return result.Error;
            }
        }

        return Errno.None;
    }

    /// <summary>
    /// Receives what there is, at least a byte; 0 when the other side has closed. ETIMEDOUT when the time is over, whatever
    /// there may be to receive: what comes without end comes to an end so.
    /// </summary>
    /// <param name="deadline">In milliseconds of <see cref="Clock.Milliseconds"/>.</param>
    public Result Receive(Span<byte> to, long deadline)
    {
        int left = Left(deadline);
        return left > 0 && Descriptors.WaitReadable(_fd, left) ? Sockets.ReceiveWaiting(_fd, to) : Result.From(Errno.ETIMEDOUT);
    }

    static int Left(long deadline) => (int)Math.Clamp(deadline - Clock.Milliseconds, 0, int.MaxValue);

    /// <summary>Says that nothing more will be sent.</summary>
    public void HalfClose() => _ = Sockets.Shutdown(_fd, Sockets.ShutWrite);

    /// <summary>The process that called listen(2) at the other end, or 0; it may have ended, and its id be another's.</summary>
    public int PeerProcess => Sockets.Peer(_fd, out Sockets.PeerIds peer).Ok ? peer.Pid : 0;

    public void Dispose() => _ = Libc.close(_fd);
}
