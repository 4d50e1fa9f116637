namespace Pesto.Linux;

/// <summary>
/// The system's logger, as datagrams to /dev/log: lines of the facility "daemon", priority "info", in the format of RFC 3164
/// without the time, which the logger adds. Unlike syslog(3) it never waits: while the logger's socket is full, lines are lost.
/// </summary>
public static unsafe class SystemLog
{
    const string Path = "/dev/log";

    static int _fd = -1;

    /// <summary>Connects to the logger; without one, lines go nowhere.</summary>
    public static void Open()
    {
        Result socket = Sockets.UnixDatagram();
        if (!socket.Ok)
            return;
        _fd = socket.Value;
        _ = Connect().Ok;
    }

    static Result Connect() => UnixAddress.TryCreate(Path, out UnixAddress address) ? address.Connect(_fd) : Result.From(Errno.EINVAL);

    /// <param name="line">UTF-8: the name of the program, a colon, the message.</param>
    public static void Write(ReadOnlySpan<byte> line)
    {
        ReadOnlySpan<byte> priority = "<30>"u8;
        byte* datagram = stackalloc byte[priority.Length + line.Length];
        priority.CopyTo(new Span<byte>(datagram, priority.Length));
        line.CopyTo(new Span<byte>(datagram + priority.Length, line.Length));
        Result sent = Sockets.Send(_fd, datagram, priority.Length + line.Length);
        // The logger that this was connected to has closed its socket; another may have bound the path.
        bool isGone = sent.Is(Errno.ECONNREFUSED) || sent.Is(Errno.ENOTCONN) || sent.Is(Errno.ECONNRESET);
        if (isGone && Connect().Ok)
            _ = Sockets.Send(_fd, datagram, priority.Length + line.Length).Ok;
    }
}
