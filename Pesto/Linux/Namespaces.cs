namespace Pesto.Linux;

/// <summary>Network namespaces. A socket belongs to the namespace of the thread that makes it.</summary>
public static class Namespaces
{
    const int Network = 0x40000000;

    /// <summary>Moves the calling thread, and no other, into the network namespace that the descriptor stands for.</summary>
    public static Result EnterNetwork(int fd) => Result.Of(Libc.setns(fd, Network));
}
