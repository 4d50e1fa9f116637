using Pesto.CommandLine;
using Pesto.Forwarder.Loop;
using Pesto.Forwarder.Namespace;
using Pesto.Linux;

namespace Pesto.Forwarder.Startup;

/// <summary>
/// The two sides between which is forwarded. With a network namespace to forward into, the calling thread, the loop's, moves into it, and
/// another one stays on the host's side. Without one, both sides are where the program was started.
/// </summary>
public sealed class TargetNamespace
{
    readonly ServeOptions _options;
    readonly Files.FileIdentity _identity;

    /// <param name="poolSize">As in <see cref="NamespaceThread"/>.</param>
    /// <exception cref="LinuxException">It can't be entered.</exception>
    /// <exception cref="UsageException">It is the one in which the program was started.</exception>
    public TargetNamespace(ServeOptions options, int poolSize)
    {
        _options = options;
        if (options.NetnsPath is not string path)
        {
            Host = Own;
            return;
        }

        int fd = Files.Open(path, Files.ReadOnly).OrThrow($"network namespace {path}");
        _identity = Files.Fstat(fd);
        // Both sides would be one, and a rule that keeps the port would lead back to itself, connection by connection.
        if (Files.Stat("/proc/self/ns/net", out Files.FileIdentity started).Ok && _identity == started)
            throw new UsageException($"network namespace {path} is the one that this is started in: to forward within it, use --target");
        // Before this thread moves: a new thread is in the namespace of the one that starts it.
        Host = OtherSide = new(poolSize);
        Result entered = Namespaces.EnterNetwork(fd);
        // Entering was tried before (UserNamespace), so EPERM here means that executing this program cost its capabilities: util-linux's
        // nsenter keeps them since 2.40.
        entered.OrThrow(entered.Is(Errno.EPERM) && !options.NetnsOnly
            ? $"entering network namespace {path} (its user namespace does not have this user as root: then nsenter of util-linux 2.40 or newer is needed)"
            : $"entering network namespace {path}");
        Descriptors.Close(fd);
        InheritedDescriptor.Close(path);
    }

    /// <summary>Where the program was started.</summary>
    public NetworkNamespace Host { get; }

    /// <summary>Where the loop's thread is.</summary>
    public NetworkNamespace Own { get; } = new CurrentNamespace();

    /// <summary>The thread on the host's side; null if there is one side only.</summary>
    public NamespaceThread? OtherSide { get; }

    /// <summary>Whether listening sockets and targets are in one namespace.</summary>
    public bool IsOneSide => Host == Own;

    /// <summary>Ends the loop when the namespace's name or process is gone; null if that is not wanted, or can't come: a descriptor keeps what it is open to.</summary>
    public NamespaceWatch? Watch(EventLoop loop) =>
        _options.NetnsPath is string path && !_options.NoNetnsQuit && InheritedDescriptor.Of(path) is null ? new(loop, path, _identity) : null;
}
