using System.Runtime.InteropServices;
using System.Text;

namespace Pesto.Linux;

/// <summary>The few operations on files that the program needs.</summary>
public static unsafe class Files
{
    public const int ReadOnly = 0, WriteOnly = 1, ReadWrite = 2, Create = 0x40, Exclusive = 0x80, Truncate = 0x200, Append = 0x400;
    public const int NoTerminal = 0x100, NonBlocking = 0x800, PathOnly = 0x200000;

    /// <summary>Opening a symbolic link fails with ELOOP, where it is the last part of the path.</summary>
    public static readonly int NoFollow = RuntimeInformation.ProcessArchitecture == Architecture.Arm64 ? 0x8000 : 0x20000;

    const int CloseOnExec = 0x80000;

    public static Result Open(string path, int flags, int mode = 0)
    {
        fixed (byte* p = Text(path))
            return Result.Of(Libc.open(p, flags | CloseOnExec, mode));
    }

    public static Result Unlink(string path)
    {
        fixed (byte* p = Text(path))
            return Result.Of(Libc.unlink(p));
    }

    /// <summary>Removes a file if the path still names the one with this identity.</summary>
    public static void UnlinkIfStill(string path, FileIdentity identity)
    {
        if (Lstat(path, out FileIdentity now).Ok && now == identity)
            _ = Unlink(path).Ok;
    }

    /// <summary>access(2) with F_OK: whether the path exists and can be reached, for the real user id.</summary>
    public static Result Access(string path)
    {
        fixed (byte* p = Text(path))
            return Result.Of(Libc.access(p, 0));
    }

    public static bool IsExecutable(string path)
    {
        fixed (byte* p = Text(path))
            return Libc.access(p, 1) == 0;
    }

    public static Result ReadLink(string path, out string target)
    {
        byte* buffer = stackalloc byte[4096];
        fixed (byte* p = Text(path))
        {
            Result result = Result.Of(Libc.readlink(p, buffer, 4096));
            target = result.Ok ? Encoding.UTF8.GetString(buffer, result.Value) : "";
            return result;
        }
    }

    /// <summary>What a path names; a symbolic link at its end is not followed. ENOENT: nothing.</summary>
    public static Result Lstat(string path, out FileIdentity identity) => Statx(Text(path), 0x100, out identity);

    /// <summary>What a path names; symbolic links are followed. ENOENT: nothing.</summary>
    public static Result Stat(string path, out FileIdentity identity) => Stat(Text(path), out identity);

    /// <summary>The same without allocating: the path as UTF-8, with a NUL at its end.</summary>
    public static Result Stat(ReadOnlySpan<byte> path, out FileIdentity identity) => Statx(path, 0, out identity);

    /// <summary>What a descriptor is open to.</summary>
    public static FileIdentity Fstat(int fd)
    {
        Stat($"/proc/self/fd/{fd}", out FileIdentity identity).OrThrow($"looking at descriptor {fd}");
        return identity;
    }

    static Result Statx(ReadOnlySpan<byte> path, int flags, out FileIdentity identity)
    {
        const int WorkingDirectory = -100;
        const uint BasicStatisticsAndBirth = 0xfff;
        // struct statx: the mode is at 28, the inode at 32, the time of birth in seconds at 80 and its nanoseconds at 88 (0 where not
        // known), the device's major and minor number at 136.
        byte* status = stackalloc byte[256];
        fixed (byte* p = path)
        {
            Result result = Result.Of(Libc.statx(WorkingDirectory, p, flags, BasicStatisticsAndBirth, status));
            identity = result.Ok
                ? new(*(ushort*)(status + 28) & 0xf000, *(ulong*)(status + 32), *(ulong*)(status + 136), (*(long*)(status + 80) * 1_000_000_000) + *(uint*)(status + 88))
                : default;
            return result;
        }
    }

    /// <summary>Reads a file from its beginning until its end, or until the buffer is full.</summary>
    public static Result Read(string path, Span<byte> buffer, out int length)
    {
        length = 0;
        Result file = Open(path, ReadOnly);
        if (!file.Ok)
            return file;
        Result read = default;
        while (length < buffer.Length && (read = Descriptors.Read(file.Value, buffer[length..])).Ok && read.Value > 0)
            length += read.Value;
        Descriptors.Close(file.Value);
        return read;
    }

    const int GetLock = 36, SetLock = 37;
    const short ReadLock = 0, WriteLock = 1, NoLock = 2;

    /// <summary>
    /// Takes a read lock on a byte of an open file (fcntl(2), F_OFD_SETLK), which does not have to exist. It belongs to this opening of the file, with
    /// all descriptors and processes that have it, and ends with the last of them.
    /// </summary>
    public static Result Lock(int fd, long at) => SetLockOn(fd, at, ReadLock);

    /// <summary>Fails only where <see cref="Lock"/> would.</summary>
    public static void Unlock(int fd, long at) => _ = SetLockOn(fd, at, NoLock).Ok;

    /// <summary>Whether the byte is locked by another opening of the file.</summary>
    public static bool IsLocked(int fd, long at)
    {
        FileLock asked = new() { Type = WriteLock, Start = at, Length = 1 };
        return Libc.fcntl(fd, GetLock, (nint)(&asked)) == 0 && asked.Type != NoLock;
    }

    static Result SetLockOn(int fd, long at, short type)
    {
        FileLock wanted = new() { Type = type, Start = at, Length = 1 };
        return Result.Of(Libc.fcntl(fd, SetLock, (nint)(&wanted)));
    }

    /// <summary>struct flock, with 64-bit offsets.</summary>
    [StructLayout(LayoutKind.Sequential)]
    struct FileLock
    {
        public short Type;
        public short From;
        public long Start;
        public long Length;
        public int Process;
    }

    /// <summary>umask(2): the mode bits that files made from now on do not get. Returns the mask before.</summary>
    public static int SetMask(int mask) => (int)Libc.umask((uint)mask);

    /// <summary>As UTF-8 with a NUL at its end, as the kernel wants it.</summary>
    public static byte[] Text(string text)
    {
        byte[] bytes = new byte[Encoding.UTF8.GetByteCount(text) + 1];
        Encoding.UTF8.GetBytes(text, bytes);
        return bytes;
    }

    /// <summary>A file's kind, inode and device, and when it was made: an inode's number may be used again at once, its time of birth not.</summary>
    /// <param name="Kind">As in the mode of inode(7).</param>
    public readonly record struct FileIdentity(int Kind, ulong Inode, ulong Device, long Born)
    {
        public bool IsSocket => Kind == 0xc000;

        public bool IsRegular => Kind == 0x8000;
    }
}
