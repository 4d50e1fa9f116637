namespace Pesto.Linux;

/// <summary>
/// A way to change something in the kernel by netlink(7), in the network namespace of the thread that opens it. The kernel does what a message
/// asks before the call that sends it returns, and looks then whether opener and sender may.
/// </summary>
public sealed unsafe class NetlinkSocket
{
    /// <summary>Protocols: routes, rules and addresses (rtnetlink(7)); nf_tables.</summary>
    public const int Route = 0, Netfilter = 12;

    internal const int Family = 16;

    const int Raw = 3, NonBlocking = 0x800, CloseOnExec = 0x80000;
    const int HeadSize = 16, TypeAt = 4, SequenceAt = 8;
    const ushort ErrorType = 2;
    const int BufferSize = 32 * 1024;

    readonly NativeArray<byte> _buffer = new(BufferSize);

    NetlinkSocket(int fd) => Fd = fd;

    public int Fd { get; }

    /// <summary>Null if the kernel does not have the protocol (EPROTONOSUPPORT) or no descriptor is to be had.</summary>
    public static Result Open(int protocol, out NetlinkSocket? socket)
    {
        Result opened = Result.Of(Libc.socket(Family, Raw | NonBlocking | CloseOnExec, protocol));
        socket = opened.Ok ? new(opened.Value) : null;
        return opened;
    }

    /// <summary>Sends messages as one and gives the first error that one of them met, except an expected one. Each is to have <see cref="NetlinkMessages.Acknowledge"/>.</summary>
    /// <param name="expected">An error that is none here, such as EEXIST for what may be there already.</param>
    public Result Do(NetlinkMessages messages, Errno expected = Errno.None)
    {
        fixed (byte* p = messages.Bytes)
        {
            Result sent;
            do
                sent = Sockets.Send(Fd, p, messages.Bytes.Length);
            while (sent.Is(Errno.EINTR));
            if (!sent.Ok)
                return sent;
        }

        Errno first = Errno.None;
        while (true)
        {
            Result received = Sockets.Receive(Fd, _buffer.Pointer, BufferSize);
            if (received.Is(Errno.EINTR))
                continue;
            if (!received.Ok)
                return first != Errno.None ? Result.From(first) : received.Is(Errno.EAGAIN) ? default : received;
            for (int at = 0; at + HeadSize + sizeof(int) <= received.Value;)
            {
                byte* message = _buffer.Pointer + at;
                // struct nlmsgerr: a negative error or 0, then the message's own head.
                if (*(ushort*)(message + TypeAt) == ErrorType)
                {
                    Errno error = (Errno)(-*(int*)(message + HeadSize));
                    if (first == Errno.None && error != expected)
                        first = error;
                }

                at += (int)((Math.Max(*(uint*)message, HeadSize) + 3) & ~3u);
            }
        }
    }

    public void Close() => Descriptors.Close(Fd);
}
