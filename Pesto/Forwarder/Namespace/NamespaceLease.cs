using Pesto.Linux;

namespace Pesto.Forwarder.Namespace;

/// <summary>
/// What the forwarders in one network namespace hold while they work in it, so that the first of them and the last know that they are. It is a lock
/// on the kernel's own file for the namespace (/proc/PID/ns/net), which everybody in it can open, whatever else is shared, and which the kernel
/// takes back when the processes that hold it end, however they end.
/// </summary>
/// <remarks>
/// The file can't be opened for writing, so there are read locks (fcntl(2), F_OFD_SETLK) only, which never exclude each other; but whether another one
/// is there can be asked. Locks by flock(2) won't do: programs of .NET take those whenever they open a file. Two bytes of the file stand for
/// two things: the first for a forwarder that is there, the second for one that just begins or ends. Who wants the second says so, then looks
/// whether another says so too; if so, both step back and try again a little later.
/// </remarks>
public sealed class NamespaceLease
{
    const long Present = 0, Busy = 1;

    const int Attempts = 400, LeastPause = 3, MorePause = 8;

    uint _random = (uint)Processes.Id;

    NamespaceLease(int fd) => Fd = fd;

    public int Fd { get; }

    /// <summary>No other forwarder is there: what one has left behind can be removed.</summary>
    public bool IsFirst { get; private set; }

    /// <summary>
    /// Takes the lease of the namespace that the calling thread is in, and keeps others from beginning or ending until <see cref="Share"/>. EAGAIN if
    /// others do so for seconds.
    /// </summary>
    public static Result Take(out NamespaceLease? lease)
    {
        lease = null;
        Result file = Files.Open("/proc/thread-self/ns/net", Files.ReadOnly);
        if (!file.Ok)
            return file;
        NamespaceLease taken = new(file.Value);
        Result locked = taken.BecomeBusy();
        if (locked.Ok)
        {
            taken.IsFirst = !Files.IsLocked(taken.Fd, Present);
            locked = Files.Lock(taken.Fd, Present);
        }

        if (locked.Ok)
            lease = taken;
        else
            Descriptors.Close(file.Value);
        return locked;
    }

    Result BecomeBusy()
    {
        for (int i = 0; i < Attempts; i++)
        {
            Result locked = Files.Lock(Fd, Busy);
            if (!locked.Ok || !Files.IsLocked(Fd, Busy))
                return locked;
            Files.Unlock(Fd, Busy);
            _random = (_random * 1664525) + 1013904223;
            Clock.Sleep(LeastPause + (int)(_random >> 16) % MorePause);
        }

        return Result.From(Errno.EAGAIN);
    }

    /// <summary>Lets others begin and end.</summary>
    public void Share() => Files.Unlock(Fd, Busy);

    /// <summary>Gives it up. True if this was the last: then nobody else begins until <see cref="Share"/>. Allocates nothing.</summary>
    public bool End()
    {
        if (!BecomeBusy().Ok)
            return false;
        Files.Unlock(Fd, Present);
        bool isLast = !Files.IsLocked(Fd, Present);
        if (!isLast)
            Share();
        return isLast;
    }

    public void Close() => Descriptors.Close(Fd);
}
