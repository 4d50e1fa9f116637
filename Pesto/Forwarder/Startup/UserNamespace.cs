using Pesto.CommandLine;
using Pesto.Linux;

namespace Pesto.Forwarder.Startup;

/// <summary>
/// The way of an ordinary user into his container's network namespace: it leads through the user namespace that owns it,
/// in which he may do what root may. Only a process with one thread may enter a user namespace, so nsenter(1) does
/// that and executes this program again.
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
        // It is opened again by this name from within nsenter, which is this process.
        Descriptors.SetCloseOnExec(user, false).OrThrow("passing on a user namespace");
        string[] enter = [nsenter, "--preserve-credentials", $"--user=/proc/self/fd/{user}"];
        // Executing a program costs a user who is not root in there what he may do, unless nsenter (of util-linux 2.40 or newer) keeps it.
        string[] keeping = [nsenter, "--keep-caps", "--version"];
        bool canKeep = Processes.RunSilently(nsenter, keeping) is { Ok: true, Value: 0 };
        return new(canKeep ? [.. enter, "--keep-caps", "--"] : [.. enter, "--"], user);
    }

    static int Given(string path)
    {
        int user = Files.Open(path, Files.ReadOnly).OrThrow($"user namespace {path}");
        return IsOurs(user) ? -1 : user;
    }

    /// <summary>The user namespace without which there is no way into a network namespace; -1 if it can be entered as we are.</summary>
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

        // The outermost of those around it is the one that this user made; from there, those within are open to him.
        while (Namespaces.ParentUser(user) is { Ok: true, Value: int parent } && !IsOurs(parent))
            user = parent;
        if (Namespaces.OwnerId(user, out uint owner).Ok && owner != Processes.User)
            entered.OrThrow($"entering network namespace {path}, which only root and user {owner} can do");
        return user;
    }

    /// <summary>Tries it with a thread that comes to nothing else.</summary>
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
