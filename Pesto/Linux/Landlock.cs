namespace Pesto.Linux;

/// <summary>
/// Landlock rules under which a thread can open, make and change no file, whatever the user's rights, and can remove files in a few folders
/// only. Descriptors that are open already stay as they are.
/// </summary>
public sealed unsafe class Landlock
{
    const int PathBeneath = 1;
    const ulong RemoveFile = 1ul << 5;
    const int AskVersion = 1;
    const ulong AbstractUnixSockets = 1;
    const int OpenAsPath = 0x200000;

    readonly int _fd;

    Landlock(int fd) => _fd = fd;

    /// <summary>Fails with ENOSYS or EOPNOTSUPP where the kernel has no Landlock.</summary>
    /// <param name="removable">Paths of files that may be removed, and with them everything beside them.</param>
    public static Result Prepare(ReadOnlySpan<string> removable, out Landlock? landlock)
    {
        landlock = null;
        Result version = Result.Of(Libc.syscall(SystemCall.LandlockCreateRuleset.Number, 0, 0, AskVersion));
        if (!version.Ok)
            return version;
        // How many rights to files (LANDLOCK_ACCESS_FS_*) each version of the ABI has: 13, 14, 15, 15, 16.
        int known = version.Value switch { 1 => 13, 2 => 14, 3 or 4 => 15, _ => 16 };
        // struct landlock_ruleset_attr: the rights to files that are taken away, those to the network, and what is scoped (abstract UNIX sockets).
        ulong* attributes = stackalloc ulong[3] { (1ul << known) - 1, 0, version.Value >= 6 ? AbstractUnixSockets : 0 };
        int size = version.Value switch { < 4 => 8, < 6 => 16, _ => 24 };
        Result created = Result.Of(Libc.syscall(SystemCall.LandlockCreateRuleset.Number, (nint)attributes, size, 0));
        if (!created.Ok)
            return created;
        foreach (string path in removable)
            Allow(created.Value, FolderOf(path));
        landlock = new(created.Value);
        return created;
    }

    /// <summary>Puts the rules in force for the calling thread, for which no_new_privs has to be set (else EPERM).</summary>
    public Result Enter() => Result.Of(Libc.syscall(SystemCall.LandlockRestrictSelf.Number, _fd, 0, 0));

    public void Close() => Descriptors.Close(_fd);

    static void Allow(int ruleset, string folder)
    {
        Result opened = Files.Open(folder, OpenAsPath);
        if (!opened.Ok)
            return;
        // struct landlock_path_beneath_attr: what is allowed (64 bits), below which open folder (32 bits).
        byte* rule = stackalloc byte[12];
        *(ulong*)rule = RemoveFile;
        *(int*)(rule + 8) = opened.Value;
        _ = Libc.syscall(SystemCall.LandlockAddRule.Number, ruleset, PathBeneath, (nint)rule, 0);
        Descriptors.Close(opened.Value);
    }

    static string FolderOf(string path) => path.LastIndexOf('/') switch { < 0 => ".", 0 => "/", int slash => path[..slash] };
}
