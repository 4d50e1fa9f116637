using Pesto.CommandLine;
using Pesto.Linux;

namespace Pesto.Forwarder.Startup;

/// <summary>
/// How an unprivileged user gets into a container's network namespace: by way of the user namespace that owns it, in which the user who made
/// it has all capabilities. setns(2) to a user namespace fails in a process with several threads, so nsenter(1) does that and executes this
/// program again.
/// </summary>
public static class UserNamespace
{
    /// <summary>How to enter what has to be entered.</summary>
    /// <param name="Command">Enters it and executes what follows; empty if nothing has to be entered.</param>
    /// <param name="Descriptor">Open to the user namespace, and inherited by what is executed; -1 if nothing has to be entered.</param>
    public readonly record struct Way(string[] Command, int Descriptor);

    public static Way Find(ServeOptions options)
    {
        Way none = new([], -1);
        if (options.NetnsPath is null || options.NetnsOnly)
            return none;
        int user = options.UsernsPath is not null ? Given(options.UsernsPath) : Needed(options.NetnsPath);
        if (user < 0)
            return none;

        string nsenter = Processes.FindProgram("nsenter")
            ?? throw new UsageException("entering a user namespace needs the program nsenter, of the package util-linux");
        // nsenter, executed in this same process, opens it by this name.
        Descriptors.SetCloseOnExec(user, false).OrThrow("passing on a user namespace");
        string[] enter = [nsenter, "--preserve-credentials", $"--user=/proc/self/fd/{user}"];
        // execve(2) drops the capabilities of a user who is not 0 in the namespace, unless nsenter makes them ambient (util-linux 2.40 or newer).
        string[] keeping = [nsenter, "--keep-caps", "--version"];
        bool canKeep = Processes.RunSilently(nsenter, keeping) is { Ok: true, Value: 0 };
        return new(canKeep ? [.. enter, "--keep-caps", "--"] : [.. enter, "--"], user);
    }

    static int Given(string path)
    {
        int user = Files.Open(path, Files.ReadOnly).OrThrow($"user namespace {path}");
        return IsOurs(user) ? -1 : user;
    }

    /// <summary>The user namespace that has to be entered first; -1 if the network namespace can be entered without.</summary>
    static int Needed(string path)
    {
        int network = Files.Open(path, Files.ReadOnly).OrThrow($"network namespace {path}");
        Result entered = TryEntering(network);
        if (entered.Ok)
            return -1;
        if (!entered.Is(Errno.EPERM))
            entered.OrThrow($"entering network namespace {path}");

        int user = Namespaces.OwningUser(network).OrThrow($"network namespace {path}: finding the user namespace that owns it");
        if (IsOurs(user))
            entered.OrThrow($"entering network namespace {path}, which only root can do");

        // Of user namespaces nested in each other, entering the outermost that is not this process's gives capabilities in all of them.
        while (Namespaces.ParentUser(user) is { Ok: true, Value: int parent } && !IsOurs(parent))
            user = parent;
        if (Namespaces.OwnerId(user, out uint owner).Ok && owner != Processes.User)
            entered.OrThrow($"entering network namespace {path}, which only root and user {owner} can do");
        return user;
    }

    /// <summary>Tries it in a thread that does nothing else and ends.</summary>
    static Result TryEntering(int network)
    {
        Result result = default;
        Thread thread = new(() => result = Namespaces.EnterNetwork(network));
        thread.Start();
        thread.Join();
        return result;
    }

    static bool IsOurs(int user) =>
        Files.Stat("/proc/self/ns/user", out Files.FileIdentity ours).Ok && Files.Fstat(user) == ours;
}
