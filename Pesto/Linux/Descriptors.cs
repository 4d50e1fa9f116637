using System.Runtime.CompilerServices;

namespace Pesto.Linux;

/// <summary>What works on any descriptor, and pipes.</summary>
public static unsafe class Descriptors
{
    const int PollIn = 1, PollOut = 4;
    const int NonBlocking = 0x800, CloseOnExec = 0x80000;
    const int SetPipeSize = 1031, GetPipeSize = 1032, SetFlags = 2, GetStatus = 3, SetStatus = 4;
    const uint SpliceMove = 1, SpliceNonBlock = 2;

    /// <summary>Closes. Linux releases the descriptor before it reports an error (EINTR, EIO), so errors are ignored.</summary>
    public static void Close(int fd) => _ = Libc.close(fd);

    /// <summary>A non-blocking pipe. Fails with EMFILE, ENFILE or ENOMEM.</summary>
    public static Result Pipe(out int read, out int write)
    {
        int* ends = stackalloc int[2];
        Result result = Result.Of(Libc.pipe2(ends, NonBlocking | CloseOnExec));
        read = result.Ok ? ends[0] : -1;
        write = result.Ok ? ends[1] : -1;
        return result;
    }

    /// <summary>A blocking pipe: reading waits for a byte, or for the last writing end to be closed.</summary>
    public static Result WaitablePipe(out int read, out int write)
    {
        int* ends = stackalloc int[2];
        Result result = Result.Of(Libc.pipe2(ends, CloseOnExec));
        read = result.Ok ? ends[0] : -1;
        write = result.Ok ? ends[1] : -1;
        return result;
    }

    /// <summary>Sets the capacity in bytes. EPERM: an unprivileged user is beyond fs.pipe-user-pages-soft, or fs.pipe-max-size; EBUSY: it holds more.</summary>
    public static Result ResizePipe(int fd, int bytes) => Result.Of(Libc.fcntl(fd, SetPipeSize, bytes));

    /// <summary>Capacity in bytes; a user beyond fs.pipe-user-pages-soft gets pipes of 4096 or 8192.</summary>
    public static Result PipeSize(int fd) => Result.Of(Libc.fcntl(fd, GetPipeSize, 0));

    /// <summary>Moves bytes between a pipe and a socket without copying them; never waits.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Result Splice(int from, int to, int length) =>
        Result.Of(Libc.splice(from, null, to, null, (nuint)length, SpliceMove | SpliceNonBlock));

    public static Result Write(int fd, byte* bytes, int length) => Result.Of(Libc.write(fd, bytes, (nuint)length));

    public static Result Read(int fd, Span<byte> buffer)
    {
        fixed (byte* p = buffer)
        {
            Result result;
            do
                result = Result.Of(Libc.read(fd, p, (nuint)buffer.Length));
            while (result.Is(Errno.EINTR));
            return result;
        }
    }

    /// <summary>Waits until there is something to read, or the end of it; false when the time, in milliseconds, is over.</summary>
    public static bool WaitReadable(int fd, int milliseconds) => Wait(fd, PollIn, milliseconds);

    /// <summary>Waits until something can be written, or never will be; false when the time, in milliseconds, is over.</summary>
    public static bool WaitWritable(int fd, int milliseconds) => Wait(fd, PollOut, milliseconds);

    static bool Wait(int fd, int events, int milliseconds)
    {
        long end = Clock.Milliseconds + milliseconds;
        // struct pollfd: descriptor, then the events asked for and those that came, 16 bits each.
        int* wait = stackalloc int[2] { fd, events };
        Result ready;
        do
            ready = Result.Of(Libc.poll(wait, 1, (int)Math.Max(0, end - Clock.Milliseconds)));
        while (ready.Is(Errno.EINTR));
        return ready.Ok && ready.Value > 0;
    }

    /// <summary>Whether writing would not wait: a full pipe, or a stopped terminal, takes nothing.</summary>
    public static bool IsWritable(int fd)
    {
        int* wait = stackalloc int[2] { fd, PollOut };
        return Result.Of(Libc.poll(wait, 1, 0)) is { Ok: true, Value: > 0 };
    }

    /// <summary>Reads from a file at a place, in bytes from its beginning.</summary>
    public static Result ReadAt(int fd, Span<byte> buffer, long offset)
    {
        fixed (byte* p = buffer)
            return Result.Of(Libc.pread(fd, p, (nuint)buffer.Length, offset));
    }

    public static Result WriteAt(int fd, ReadOnlySpan<byte> bytes, long offset)
    {
        fixed (byte* p = bytes)
            return Result.Of(Libc.pwrite(fd, p, (nuint)bytes.Length, offset));
    }

    /// <summary>Writes all, going on after a partial write; the first error ends it.</summary>
    public static Result WriteAll(int fd, ReadOnlySpan<byte> bytes)
    {
        fixed (byte* p = bytes)
        {
            int done = 0;
            while (done < bytes.Length)
            {
                Result result = Result.Of(Libc.write(fd, p + done, (nuint)(bytes.Length - done)));
                if (result.Ok)
                    done += result.Value;
                else if (!result.Is(Errno.EINTR))
                    return result;
            }

            return Result.From(done);
        }
    }

    /// <summary>
    /// Opens /dev/null, or "/" as O_PATH, in place of those of standard input, output and errors that are closed. Otherwise the next file or
    /// socket to be opened would get the number 0, 1 or 2, and with it what is written for people.
    /// </summary>
    /// <param name="failing">Use O_PATH: reading and writing fail with EBADF, as on a closed descriptor.</param>
    public static void FillStandard(bool failing = false)
    {
        Result opened;
        while ((opened = failing ? Files.Open("/", Files.PathOnly) : Files.Open("/dev/null", Files.ReadWrite)) is { Ok: true, Value: <= 2 })
            _ = SetCloseOnExec(opened.Value, false).Ok;
        if (opened.Ok)
            Close(opened.Value);
    }

    /// <summary>Closes every descriptor below a number, except some.</summary>
    public static void CloseAllBut(ReadOnlySpan<int> kept, int below)
    {
        for (int fd = 0; fd < below; fd++)
        {
            if (!kept.Contains(fd))
                _ = Libc.close(fd);
        }
    }

    public static bool IsTerminal(int fd) => Libc.isatty(fd) == 1;

    /// <summary>Sets or clears FD_CLOEXEC. Fails with EBADF.</summary>
    public static Result SetCloseOnExec(int fd, bool on) => Result.Of(Libc.fcntl(fd, SetFlags, on ? 1 : 0));

    /// <summary>Sets FD_CLOEXEC for all descriptors but the standard three.</summary>
    public static void SetAllCloseOnExec()
    {
        const int FirstOther = 3, SetFlag = 4, Highest = 65535;
        if (Libc.syscall(SystemCall.CloseRange.Number, FirstOther, int.MaxValue, SetFlag) == 0)
            return;
        // Before Linux 5.11, close_range has no CLOSE_RANGE_CLOEXEC.
        for (int fd = FirstOther; fd <= Highest; fd++)
            _ = SetCloseOnExec(fd, true).Ok;
    }

    /// <summary>Changes the owner of a socket: the kernel compares owners where sockets share a port.</summary>
    public static Result ChangeOwner(Identity owner, int fd) => Result.Of(Libc.fchown(fd, owner.User, owner.Group));

    /// <summary>An eventfd: reading waits until the counter is not 0, and sets it to 0; writing adds to it.</summary>
    public static Result EventCounter() => Result.Of(Libc.eventfd(0, CloseOnExec));

    /// <summary>Another descriptor above the standard ones for what one is open to. Fails with EBADF or EMFILE.</summary>
    public static Result Duplicate(int fd)
    {
        const int DuplicateCloseOnExec = 1030, FirstOther = 3;
        return Result.Of(Libc.fcntl(fd, DuplicateCloseOnExec, FirstOther));
    }

    public static Result Duplicate(int fd, int to) => Result.Of(Libc.dup2(fd, to));
}
