using System.Collections;
using System.Runtime.InteropServices;

namespace Pesto.Linux;

/// <summary>This process and those that it starts: identity, limits, signals, exec.</summary>
public static unsafe class Processes
{
    public const int SIGHUP = 1, SIGINT = 2, SIGUSR1 = 10, SIGPIPE = 13, SIGTERM = 15;
    const int Kill = 9;
    const int MostDescriptors = 7;

    public static int Id => Libc.getpid();

    public static uint User => Libc.geteuid();

    public static uint Group => Libc.getegid();

    /// <summary>A pidfd, which becomes readable when the process ends. ESRCH: there is none; EINVAL: the id is a thread's.</summary>
    public static Result Watch(int pid)
    {
        return Result.Of(Libc.syscall(SystemCall.PidfdOpen.Number, pid, 0));
    }

    /// <summary>The path of a program in the first folder of PATH that has it, or null.</summary>
    public static string? FindProgram(string name)
    {
        foreach (string folder in (System.Environment.GetEnvironmentVariable("PATH") ?? "/usr/bin:/bin").Split(':'))
        {
            string path = $"{folder}/{name}";
            if (folder.StartsWith('/') && Files.IsExecutable(path))
                return path;
        }

        return null;
    }

    /// <summary>Raises the soft limit of descriptors to the hard one, and returns it, int.MaxValue at most.</summary>
    public static long RaiseDescriptorLimit()
    {
        ulong* limit = stackalloc ulong[2];
        Result.Of(Libc.getrlimit(MostDescriptors, limit)).OrThrow("reading the limit of descriptors");
        if (limit[0] < limit[1])
        {
            ulong soft = limit[0];
            limit[0] = limit[1];
            if (Libc.setrlimit(MostDescriptors, limit) != 0)
                limit[0] = soft;
        }

        return limit[0] > int.MaxValue ? int.MaxValue : (long)limit[0];
    }

    /// <summary>Ignores SIGPIPE: writing to a pipe or socket without a reader fails with EPIPE.</summary>
    public static void IgnoreBrokenPipes() => _ = Libc.signal(SIGPIPE, 1);

    /// <summary>Blocks signals for this thread; threads that it starts and programs that it executes inherit that.</summary>
    public static void Block(params ReadOnlySpan<int> signals)
    {
        ulong* set = stackalloc ulong[16];
        FillSet(set, signals);
        _ = Libc.pthread_sigmask(0, set, null);
    }

    /// <summary>A signalfd, non-blocking: each blocked signal is read as 128 bytes, with its number in the first four.</summary>
    public static Result SignalDescriptor(params ReadOnlySpan<int> signals)
    {
        ulong* set = stackalloc ulong[16];
        FillSet(set, signals);
        return Result.Of(Libc.signalfd(-1, set, 0x80000 | 0x800));
    }

    static void FillSet(ulong* set, ReadOnlySpan<int> signals)
    {
        new Span<ulong>(set, 16).Clear();
        foreach (int signal in signals)
            set[0] |= 1ul << (signal - 1);
    }

    /// <summary>execve(2): returns only on failure.</summary>
    public static Result Execute(string path, ReadOnlySpan<string> arguments, ReadOnlySpan<(string Name, string Value)> more)
    {
        byte** argv = Vector(arguments);
        byte** environment = Environment(more);
        fixed (byte* p = Files.Text(path))
            return Result.Of(Libc.execve(p, argv, environment));
    }

    /// <summary>Starts a program in a session of its own, with this one's descriptors that are not close-on-exec; returns its process id.</summary>
    public static Result StartDetached(string path, ReadOnlySpan<string> arguments, ReadOnlySpan<(string Name, string Value)> more)
    {
        const short SetSession = 0x80;
        byte** argv = Vector(arguments);
        byte** environment = Environment(more);
        byte* attributes = stackalloc byte[512];
        _ = Libc.posix_spawnattr_init(attributes);
        _ = Libc.posix_spawnattr_setflags(attributes, SetSession);
        int pid;
        int error;
        fixed (byte* p = Files.Text(path))
            error = Libc.posix_spawn(&pid, p, null, attributes, argv, environment);
        _ = Libc.posix_spawnattr_destroy(attributes);
        return error == 0 ? Result.From(pid) : Result.From((Errno)error);
    }

    /// <summary>Runs a program to its end, with nothing to read and nowhere to write, and gives what <see cref="Wait"/> gives.</summary>
    public static Result RunSilently(string path, ReadOnlySpan<string> arguments)
    {
        byte** argv = Vector(arguments);
        byte** environment = Environment([]);
        byte* actions = stackalloc byte[256];
        _ = Libc.posix_spawn_file_actions_init(actions);
        int pid;
        int error;
        fixed (byte* p = Files.Text(path), none = Files.Text("/dev/null"))
        {
            for (int standard = 0; standard <= 2; standard++)
                _ = Libc.posix_spawn_file_actions_addopen(actions, standard, none, Files.ReadWrite, 0);
            error = Libc.posix_spawn(&pid, p, actions, null, argv, environment);
        }

        _ = Libc.posix_spawn_file_actions_destroy(actions);
        return error == 0 ? Wait(pid) : Result.From((Errno)error);
    }

    /// <summary>Whether a child has ended, without waiting; its exit status then, as <see cref="Wait"/> gives it.</summary>
    public static bool HasEnded(int pid, out int exitStatus)
    {
        const int DontWait = 1;
        int status;
        Result result = Result.Of(Libc.waitpid(pid, &status, DontWait));
        exitStatus = ExitStatus(status);
        return !result.Ok || result.Value == pid;
    }

    /// <summary>Sends SIGKILL to a process group.</summary>
    public static void KillGroup(int pid) => _ = Libc.kill(-pid, Kill);

    /// <summary>Waits for a child to end; gives its exit status, or 128 and the signal that ended it.</summary>
    public static Result Wait(int pid)
    {
        int status;
        Result result;
        do
            result = Result.Of(Libc.waitpid(pid, &status, 0));
        while (result.Is(Errno.EINTR));
        return result.Ok ? Result.From(ExitStatus(status)) : result;
    }

    static int ExitStatus(int status) => (status & 0x7f) == 0 ? status >> 8 & 0xff : 128 + (status & 0x7f);

    // Never freed: execve replaces this program, or it ends soon.
    static byte** Vector(ReadOnlySpan<string> texts)
    {
        byte** vector = (byte**)NativeMemory.Alloc((nuint)((texts.Length + 1) * sizeof(byte*)));
        for (int i = 0; i < texts.Length; i++)
            vector[i] = (byte*)Marshal.StringToCoTaskMemUTF8(texts[i]);
        vector[texts.Length] = null;
        return vector;
    }

    static byte** Environment(ReadOnlySpan<(string Name, string Value)> more)
    {
        List<string> all = [];
        foreach (DictionaryEntry entry in System.Environment.GetEnvironmentVariables())
        {
            bool replaced = false;
            foreach ((string name, string _) in more)
                replaced |= name == (string)entry.Key;
            if (!replaced)
                all.Add($"{entry.Key}={entry.Value}");
        }

        foreach ((string name, string value) in more)
            all.Add($"{name}={value}");
        return Vector(CollectionsMarshal.AsSpan(all));
    }
}
