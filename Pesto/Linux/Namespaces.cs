namespace Pesto.Linux;

/// <summary>
/// Network namespaces, and the user namespaces that own them. A socket belongs to the network namespace of the thread that makes it.
/// Capabilities count in a network namespace if they are held in the user namespace that owns it.
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

    /// <summary>The user who made a user namespace, and who has all capabilities in it while being in the one around it.</summary>
    public static Result OwnerId(int fd, out uint user)
    {
        fixed (uint* p = &user)
            return Result.Of(Libc.ioctl(fd, GetOwnerId, p));
    }

    /// <summary>
    /// Whether every user id of the system has one in this process's user namespace. In a container's, those that have none are all shown
    /// as the overflow id (65534), so that a peer's id says nothing.
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
