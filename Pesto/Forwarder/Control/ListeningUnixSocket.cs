using Pesto.Linux;

namespace Pesto.Forwarder.Control;

/// <summary>A UNIX socket bound to a path with mode 0600; what a dead process left at the path is replaced.</summary>
public sealed class ListeningUnixSocket
{
    public ListeningUnixSocket(string path)
    {
        Path = path;
        if (!UnixAddress.TryCreate(path, out UnixAddress address))
            throw new LinuxException($"control socket {path}: the path is empty or longer than {UnixAddress.LongestPath} bytes", Errno.EINVAL);
        Fd = Sockets.UnixStream().OrThrow($"control socket {path}");
        Result bound = Bind(Fd, address);
        if (bound.Is(Errno.EADDRINUSE) && IsAbandoned(path, address))
        {
            _ = Files.Unlink(path).Ok;
            bound = Bind(Fd, address);
        }

        bound.OrThrow($"control socket {path}");
        Files.Lstat(path, out Files.FileIdentity identity).OrThrow($"control socket {path}");
        Identity = identity;
    }

    public string Path { get; }

    public int Fd { get; }

    public Files.FileIdentity Identity { get; }

    // The mask and not chmod: there is no moment at which others could connect.
    static Result Bind(int fd, UnixAddress address)
    {
        int mask = Files.SetMask(0x7f);
        Result bound = address.Bind(fd);
        Files.SetMask(mask);
        return bound;
    }

    static bool IsAbandoned(string path, UnixAddress address)
    {
        if (!Files.Lstat(path, out Files.FileIdentity identity).Ok || !identity.IsSocket)
            return false;
        Result probe = Sockets.UnixStream();
        if (!probe.Ok)
            return false;
        bool refused = address.Connect(probe.Value).Is(Errno.ECONNREFUSED);
        Descriptors.Close(probe.Value);
        return refused;
    }
}
