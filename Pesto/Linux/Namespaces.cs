namespace Pesto.Linux;

/// <summary>
/// Network namespaces, and the user namespaces that own them. A socket belongs to the network namespace of the thread
/// that makes it. Who may do what in a network namespace is said by the user namespace that owns it.
/// </summary>
public static unsafe class Namespaces
{
    const int Network = 0x40000000;
    const nuint GetOwningUser = 0xb701, GetParent = 0xb702, GetOwnerId = 0xb704;

    /// <summary>Moves the calling thread, and no other, into the network namespace that the descriptor stands for.</summary>
    public static Result EnterNetwork(int fd) => Result.Of(Libc.setns(fd, Network));

    /// <summary>A descriptor of the user namespace that owns a namespace; EPERM if that is not this process's or one within.</summary>
    public static Result OwningUser(int fd) => Result.Of(Libc.ioctl(fd, GetOwningUser, null));

    /// <summary>A descriptor of the user namespace in which another was made; EPERM if that is not this process's or one within.</summary>
    public static Result ParentUser(int fd) => Result.Of(Libc.ioctl(fd, GetParent, null));

    /// <summary>The user who made a user namespace: in the namespace around it, he may do everything in there.</summary>
    public static Result OwnerId(int fd, out uint user)
    {
        fixed (uint* p = &user)
            return Result.Of(Libc.ioctl(fd, GetOwnerId, p));
    }

    /// <summary>
    /// Whether the ids of all users mean something to this process. In a container's user namespace they do not: there
    /// all but a few are shown as one and the same "nobody".
    /// </summary>
    public static bool EveryUserIsMapped
    {
        get
        {
            Span<byte> map = stackalloc byte[256];
            return Files.Read("/proc/self/uid_map", map, out int length).Ok && map[..length].IndexOf("4294967295"u8) >= 0;
        }
    }
}
