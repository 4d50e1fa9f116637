namespace Pesto.Linux;

/// <summary>
/// A child that removes files when this process has ended, in whatever way: in folders in which this process, which has changed its user,
/// may remove nothing. It keeps CAP_DAC_OVERRIDE and CAP_FOWNER, is behind the same Landlock rules, which leave removing files in those
/// folders, and behind a filter of system calls of its own. It is made by fork(2) and makes a few system calls; two ends of pipes are open.
/// </summary>
public sealed unsafe class Janitor
{
    const int MostDescriptors = 1 << 20;

    readonly int _alive;
    readonly int _finished;

    Janitor(int alive, int finished)
    {
        _alive = alive;
        _finished = finished;
    }

    /// <summary>Starts the child. A file is removed only if it still is the one that it was.</summary>
    /// <param name="landlock">What it may do with files; null where the kernel has no Landlock.</param>
    /// <returns>Null if there is no process or pipe left.</returns>
    public static Janitor? Start(Landlock? landlock, ReadOnlySpan<(string Path, Files.FileIdentity Identity)> own)
    {
        // Nothing is allocated in the child: fork copies one thread, and a lock that another held would never be released.
        byte[][] texts = new byte[own.Length][];
        Files.FileIdentity[] files = new Files.FileIdentity[own.Length];
        for (int i = 0; i < own.Length; i++)
            (texts[i], files[i]) = (Files.Text(own[i].Path), own[i].Identity);

        if (!Descriptors.WaitablePipe(out int watched, out int alive).Ok)
            return null;
        if (!Descriptors.WaitablePipe(out int finished, out int working).Ok)
        {
            Descriptors.Close(watched);
            Descriptors.Close(alive);
            return null;
        }

        SystemCallFilter filter = AllowedCalls.ForJanitor();
        int descriptors = (int)Math.Min(Processes.RaiseDescriptorLimit(), MostDescriptors);
        int child = Libc.fork();
        if (child == 0)
        {
            Privileges.Keep(Capability.DacOverride | Capability.Fowner);
            _ = landlock?.Enter().Ok;
            Privileges.SetNotDumpable();
            Descriptors.CloseAllBut(watched, working, descriptors);
            _ = filter.Install().Ok;
            Work(watched, texts, files);
            Libc._exit(0);
        }

        Descriptors.Close(watched);
        Descriptors.Close(working);
        if (child > 0)
            return new(alive, finished);
        Descriptors.Close(alive);
        Descriptors.Close(finished);
        return null;
    }

    static void Work(int watched, byte[][] texts, Files.FileIdentity[] files)
    {
        byte nothing;
        while (Libc.read(watched, &nothing, 1) < 0 && Libc.Errno == (int)Errno.EINTR)
        {
        }

        for (int i = 0; i < texts.Length; i++)
        {
            if (!Files.Stat(texts[i], out Files.FileIdentity now).Ok || now != files[i])
                continue;
            fixed (byte* path = texts[i])
                _ = Libc.unlink(path);
        }
    }

    /// <summary>Has the files removed, and waits until they are.</summary>
    public void Finish()
    {
        Descriptors.Close(_alive);
        Span<byte> nothing = stackalloc byte[1];
        _ = Descriptors.Read(_finished, nothing).Ok;
        Descriptors.Close(_finished);
    }
}
