using Pesto.Forwarder.Reporting;
using Pesto.Linux;

namespace Pesto.Forwarder.Startup;

/// <summary>Where messages go: to standard error, to the file of --log-file, or, in the background without one, to the system's logger.</summary>
static class LogDestination
{
    public static void Open(ServeOptions options)
    {
        Log.SetLevel(options.Quiet, options.Debug);
        if (options.LogPath is null)
            Log.NeverWaitForTerminal();
        else
            Log.WriteTo(OpenFile(options.LogPath), withTime: true);
    }

    /// <summary>Once everything listens: the terminal may go now.</summary>
    public static void EnterBackground(ServeOptions options)
    {
        if (options.LogPath is null)
            Log.ToSystem();
        Reexecution.LeaveTerminal();
    }

    static int OpenFile(string path)
    {
        const int OwnerOnly = 0x180;
        if (InheritedDescriptor.Of(path) is int inherited)
            return InheritedDescriptor.Take(inherited).OrThrow($"log file {path}");
        // Whoever may write to the folder could make a link there, and have lines appended to any file of this user's.
        Result file = Files.Open(path, Files.WriteOnly | Files.Create | Files.Append | Files.NoFollow, OwnerOnly);
        return file.OrThrow(file.Is(Errno.ELOOP) ? $"log file {path} (a symbolic link, which is not followed)" : $"log file {path}");
    }
}
