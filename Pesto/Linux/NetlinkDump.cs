namespace Pesto.Linux;

/// <summary>
/// A list that the kernel gives over netlink, netlink(7): a request, then messages up to one that ends them. The kernel makes up a part
/// of the list, some hundred entries, whenever the one before is read, so reading it in steps of one part costs little at a time
/// whatever its length. A socket gives one list at a time: what is left of one must be read before the next begins.
/// </summary>
public sealed unsafe class NetlinkDump
{
    const int Family = 16, Raw = 3, NonBlocking = 0x800, CloseOnExec = 0x80000;
    const ushort ErrorType = 2, DoneType = 3, FirstDataType = 16;
    const ushort RequestFlag = 1, DumpFlags = 0x300;

    // struct nlmsghdr: length, type (16 bits), flags (16 bits), sequence, port.
    const int HeadSize = 16;

    const int LargestRequest = 128;

    // The kernel fills as much of it as it has to say; it never gives part of a message.
    const int BufferSize = 32 * 1024;

    readonly int _fd;
    readonly NativeArray<byte> _buffer = new(BufferSize);
    readonly NativeArray<byte> _request = new(LargestRequest);
    State _state;
    bool _isUnfinished;
    bool _mayBeBusy;
    int _at;
    int _length;

    internal NetlinkDump(int fd) => _fd = fd;

    enum State
    {
        /// <summary>There is no list, or its end was reached.</summary>
        Idle,

        /// <summary>What is left of the list before is read; the request is still to be sent.</summary>
        Discarding,

        Listing,
    }

    /// <summary>Opens a socket for one of the kernel's netlink protocols, such as NETLINK_SOCK_DIAG, in the namespace of the calling thread.</summary>
    public static Result Open(int protocol) => Result.Of(Libc.socket(Family, Raw | NonBlocking | CloseOnExec, protocol));

    /// <summary>Asks for a list; go on with <see cref="Next"/>. What is left of the one before is given up.</summary>
    /// <param name="type">Of the request, such as SOCK_DIAG_BY_FAMILY.</param>
    /// <param name="body">What follows its head, at most 112 bytes.</param>
    public Result Begin(ushort type, ReadOnlySpan<byte> body)
    {
        byte* request = _request.Pointer;
        _request.Span.Clear();
        *(int*)request = HeadSize + body.Length;
        *(ushort*)(request + 4) = type;
        *(ushort*)(request + 6) = RequestFlag | DumpFlags;
        body.CopyTo(_request.Span[HeadSize..]);
        _mayBeBusy = true;
        if (!_isUnfinished)
            return Send();
        _state = State.Discarding;
        return default;
    }

    Result Send()
    {
        _at = _length = 0;
        Result sent = Sockets.Send(_fd, _request.Pointer, *(int*)_request.Pointer);
        _state = sent.Ok ? State.Listing : State.Idle;
        _isUnfinished = sent.Ok;
        return sent;
    }

    /// <summary>
    /// Gives the next message, valid until the next call, with one system call at most. 1: there it is; 0: that was the end; EAGAIN:
    /// not yet, call again. Any other error: the list breaks off here, and what would follow is not known.
    /// </summary>
    /// <param name="body">What follows the message's head.</param>
    /// <param name="size">Its length in bytes.</param>
    public Result Next(out byte* body, out int size)
    {
        body = null;
        size = 0;
        bool hasReceived = false;
        while (_state != State.Idle)
        {
            if (_at + HeadSize > _length)
            {
                if (hasReceived)
                    return Result.From(Errno.EAGAIN);
                hasReceived = true;
                Result received = Sockets.Receive(_fd, _buffer.Pointer, BufferSize);
                if (received.Is(Errno.EINTR))
                    return Result.From(Errno.EAGAIN);
                if (received is { Ok: true, Value: > 0 })
                {
                    _at = 0;
                    _length = received.Value;
                    continue;
                }

                // There is always something up to the list's end, unless the kernel lacked memory for a part (ENOBUFS).
                if (_state == State.Listing || !received.Is(Errno.EAGAIN))
                    return BreakOff(received.Is(Errno.EAGAIN) || received.Ok ? Errno.EIO : received.Error);
                Result sent = Send();
                return sent.Ok ? Result.From(Errno.EAGAIN) : sent;
            }

            byte* message = _buffer.Pointer + _at;
            size = (int)Math.Clamp(*(uint*)message, HeadSize, (uint)(_length - _at)) - HeadSize;
            _at += (size + HeadSize + 3) & ~3;
            ushort type = *(ushort*)(message + 4);
            if (type == DoneType && _state == State.Discarding)
            {
                Result sent = Send();
                return sent.Ok ? Result.From(Errno.EAGAIN) : sent;
            }

            if (_state == State.Discarding)
                continue;
            // The end carries the error by which the kernel broke off, if there was one.
            if (type is DoneType or ErrorType)
            {
                Errno error = ErrorIn(message + HeadSize, size);
                if (error != Errno.EBUSY || !_mayBeBusy)
                    return End(error == Errno.None ? default : Result.From(error));
                // A list that broke off is not at its end for the kernel: it goes on with it after this message.
                _mayBeBusy = false;
                _state = State.Discarding;
                continue;
            }

            if (type < FirstDataType)
                continue;
            body = message + HeadSize;
            return Result.From(1);
        }

        size = 0;
        return default;
    }

    /// <summary>A negative errno, or 0 for none, as the kernel has it at the start of both messages that end a list.</summary>
    static Errno ErrorIn(byte* body, int size)
    {
        int value = size >= sizeof(int) ? *(int*)body : 0;
        return value <= 0 && value > int.MinValue ? (Errno)(-value) : Errno.EPROTO;
    }

    Result End(Result result)
    {
        _state = State.Idle;
        _isUnfinished = false;
        return result;
    }

    /// <summary>The kernel may have more of this list, and will give it when there is memory again.</summary>
    Result BreakOff(Errno why)
    {
        _state = State.Idle;
        return Result.From(why);
    }
}
