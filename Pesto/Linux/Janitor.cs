namespace Pesto.Linux;

/// <summary>
/// A child that removes files when this process has ended, in whatever way: in folders in which this process, which has changed its user,
/// may remove nothing. It also undoes what this process has set up in a network namespace, by descriptors that are open already. It keeps the
/// capabilities for that, is behind the same Landlock rules, which leave removing files in those folders, and behind a filter of system calls
/// of its own. It is made by fork(2); two ends of pipes and those descriptors are open in it.
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
    /// <param name="undo">What else it does; null for nothing. Must not allocate, wait for another thread, or open a descriptor.</param>
    /// <param name="undoBy">The descriptors that this uses; -1 for none.</param>
    /// <returns>Null if there is no process or pipe left.</returns>
    public static Janitor? Start(Landlock? landlock, ReadOnlySpan<(string Path, Files.FileIdentity Identity)> own, Action? undo, ReadOnlySpan<int> undoBy)
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

        SystemCallFilter filter = AllowedCalls.ForJanitor(undoes: undo is not null);
        Capability kept = (own.Length > 0 ? Capability.DacOverride | Capability.Fowner : Capability.None) | (undo is not null ? Capability.NetAdmin : Capability.None);
        int[] open = [watched, working, .. undoBy];
        int descriptors = (int)Math.Min(Processes.RaiseDescriptorLimit(), MostDescriptors);
        int child = Libc.fork();
        if (child == 0)
        {
            // A signal to the forwarder's process group, such as SIGKILL, is not for this one.
            _ = Libc.setsid();
            Privileges.Keep(kept);
            _ = landlock?.Enter().Ok;
            Privileges.SetNotDumpable();
            Descriptors.CloseAllBut(open, descriptors);
            _ = filter.Install().Ok;
            Work(watched, texts, files, undo);
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

    static void Work(int watched, byte[][] texts, Files.FileIdentity[] files, Action? undo)
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

        undo?.Invoke();
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
