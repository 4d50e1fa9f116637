using System.Globalization;
using Pesto.Linux;

namespace Pesto.Forwarder.Startup;

/// <summary>
/// Executes the program a second time. The runtime has several threads before the program's first line: signals can't be blocked in all of
/// them any more, a user namespace can't be joined, and a fork would have one thread. So the first execution checks the command line, blocks
/// signals and executes the program again, through nsenter(1) if a user namespace is to be joined: in the same process in the foreground, in
/// a child in the background. The parent then waits for a byte in a pipe, which says that everything listens.
/// </summary>
public static class Reexecution
{
    const string StageVariable = "PESTO_READY_FD";

    /// <summary>The number of a descriptor, which is open to the user namespace that was entered on the way; "-" if none was.</summary>
    const string UserNamespaceVariable = "PESTO_USERNS_FD";

    /// <summary>What the forwarder reads from its signal descriptor.</summary>
    public static ReadOnlySpan<int> Signals => [Processes.SIGINT, Processes.SIGTERM, Processes.SIGHUP, Processes.SIGUSR1];

    /// <summary>True in the program that is to serve; false in the one that launches it.</summary>
    public static bool IsFinalStage => Environment.GetEnvironmentVariable(StageVariable) is not null;

    /// <summary>True in the program that is to serve, if it was moved to another user namespace on the way.</summary>
    public static bool EnteredUserNamespace => UserNamespaceDescriptor is not null;

    static int? UserNamespaceDescriptor =>
        int.TryParse(Environment.GetEnvironmentVariable(UserNamespaceVariable), NumberStyles.None, CultureInfo.InvariantCulture, out int fd) ? fd : null;

    /// <summary>In the program that is to serve: closes what was open for the sake of the way here.</summary>
    /// <param name="usernsPath">The user namespace as the command line names it, if it does.</param>
    public static void CloseUserNamespace(string? usernsPath)
    {
        if (UserNamespaceDescriptor is int fd)
            Descriptors.Close(fd);
        InheritedDescriptor.Close(usernsPath);
    }

    /// <summary>Sets close-on-exec for the descriptors that this program inherited: all but the standard ones, and those that a path names.</summary>
    public static void ForgetInherited(params ReadOnlySpan<string?> paths)
    {
        Descriptors.SetAllCloseOnExec();
        foreach (string? path in paths)
        {
            if (InheritedDescriptor.Of(path) is int fd)
                _ = Descriptors.SetCloseOnExec(fd, false).Ok;
        }
    }

    /// <summary>Executes the forwarder; returns, with an exit status, only in the background or on failure.</summary>
    /// <param name="way">Through a user namespace, or not.</param>
    public static int Again(bool background, UserNamespace.Way way, ReadOnlySpan<string> arguments)
    {
        Files.ReadLink("/proc/self/exe", out string self).OrThrow("finding this program (/proc/self/exe)");
        string[] command = [.. way.Command, self, "serve", .. arguments];
        (string, string) entered = (UserNamespaceVariable, way.Descriptor < 0 ? "-" : $"{way.Descriptor}");
        Processes.Block(Signals);
        if (background)
            return Detach(command, entered);
        Processes.Execute(command[0], command, [(StageVariable, "-"), entered]).OrThrow($"executing {command[0]}");
        return 1;
    }

    static int Detach(string[] command, (string, string) entered)
    {
        Descriptors.WaitablePipe(out int read, out int write).OrThrow("creating a pipe");
        Descriptors.SetCloseOnExec(write, false).OrThrow("passing on a pipe");
        int child = Processes.StartDetached(command[0], command, [(StageVariable, $"{write}"), entered]).OrThrow($"starting {command[0]}");
        Descriptors.Close(write);
        Span<byte> ready = stackalloc byte[1];
        if (Descriptors.Read(read, ready) is { Ok: true, Value: 1 })
            return 0;
        Result status = Processes.Wait(child);
        return status.Ok && status.Value != 0 ? status.Value : 1;
    }

    /// <summary>Has /dev/null as standard input, output and errors, so that the terminal can be closed.</summary>
    public static void LeaveTerminal()
    {
        Result none = Files.Open("/dev/null", Files.ReadWrite);
        if (!none.Ok)
            return;
        for (int standard = 0; standard <= 2; standard++)
            _ = Descriptors.Duplicate(none.Value, standard).Ok;
        Descriptors.Close(none.Value);
    }

    /// <summary>Writes to the pipe of the parent that waits until everything listens; there is none in the foreground.</summary>
    public static void Ready()
    {
        string? waiting = Environment.GetEnvironmentVariable(StageVariable);
        if (waiting is null || !int.TryParse(waiting, out int fd))
            return;
        _ = Descriptors.WriteAll(fd, "R"u8).Ok;
        Descriptors.Close(fd);
    }
}
