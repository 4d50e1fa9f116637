using Pesto.Linux;

namespace Pesto.Forwarder.Namespace;

/// <summary>
/// A lock on a network namespace, shared by the forwarders that work in it: it tells the first of them and the last. It is a lock (flock(2)) on
/// the kernel's own file for the namespace, so the kernel gives it back when the processes that hold it end, however they end.
/// </summary>
public sealed class NamespaceLease
{
    const int Attempts = 200, Pause = 10;

    NamespaceLease(int fd, bool isFirst)
    {
        Fd = fd;
        IsFirst = isFirst;
    }

    public int Fd { get; }

    /// <summary>No other forwarder has it: what one has left behind can be removed. Until <see cref="Share"/>, others wait.</summary>
    public bool IsFirst { get; }

    /// <summary>
    /// Takes the lease of the namespace that the calling thread is in. While another forwarder begins or ends, this waits, for 2 seconds at most: EAGAIN
    /// then, since any process in the namespace could hold the lock.
    /// </summary>
    public static Result Take(out NamespaceLease? lease)
    {
        lease = null;
        Result file = Files.Open("/proc/thread-self/ns/net", Files.ReadOnly);
        if (!file.Ok)
            return file;
        Result locked = default;
        for (int i = 0; i < Attempts; i++)
        {
            bool isFirst = (locked = Files.Lock(file.Value, exclusive: true)).Ok;
            if (!isFirst)
                locked = Files.Lock(file.Value, exclusive: false);
            if (locked.Ok)
            {
                lease = new(file.Value, isFirst);
                return locked;
            }

            Thread.Sleep(Pause);
        }

        Descriptors.Close(file.Value);
        return locked;
    }

    /// <summary>Lets others in.</summary>
    public void Share() => _ = Files.Lock(Fd, exclusive: false).Ok;

    /// <summary>Whether this is the last; then no other forwarder gets it until this ends. If not, it is given up.</summary>
    public bool TryEnd() => Files.Lock(Fd, exclusive: true).Ok;

    public void Close() => Descriptors.Close(Fd);
}
