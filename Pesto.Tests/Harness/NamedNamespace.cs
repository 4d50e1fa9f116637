using System.Runtime.InteropServices;
using System.Text;
using Pesto.Linux;

namespace Pesto.Tests.Harness;

/// <summary>
/// What `ip netns add`, `ip link set lo up` and `ip netns delete` do, with system calls instead of four processes: a namespace lives as long
/// as it is mounted on a file of its name (mount_namespaces(7), ip-netns(8)).
/// </summary>
static unsafe class NamedNamespace
{
    const int NewNetwork = 0x40000000; // CLONE_NEWNET
    const nuint Bind = 4096; // MS_BIND
    const int Detach = 2; // MNT_DETACH
    const nuint GetFlags = 0x8913, SetFlags = 0x8914; // SIOCGIFFLAGS, SIOCSIFFLAGS
    const short Up = 1; // IFF_UP

    public static void Create(string path)
    {
        File.OpenHandle(path, FileMode.CreateNew, FileAccess.ReadWrite).Dispose();
        // A thread of its own is in the new namespace and ends there.
        Result made = default;
        Thread thread = new(() => made = Make(path));
        thread.Start();
        thread.Join();
        made.OrThrow($"making {path}");
    }

    static Result Make(string path)
    {
        Result result = Result.Of(Unshare(NewNetwork));
        if (result.Ok)
        {
            fixed (byte* from = "/proc/thread-self/ns/net\0"u8, to = Terminated(path))
                result = Result.Of(Mount(from, to, null, Bind, null));
        }

        return result.Ok ? LoopbackUp() : result;
    }

    static Result LoopbackUp()
    {
        const int V4 = 2, Datagram = 2, CloseOnExec = 0x80000;
        Result fd = Result.Of(Libc.socket(V4, Datagram | CloseOnExec, 0));
        if (!fd.Ok)
            return fd;
        // struct ifreq: the name in 16 bytes, then the flags.
        byte* request = stackalloc byte[40];
        new Span<byte>(request, 40).Clear();
        "lo"u8.CopyTo(new Span<byte>(request, 16));
        Result result = Result.Of(Libc.ioctl(fd.Value, GetFlags, request));
        *(short*)(request + 16) |= Up;
        if (result.Ok)
            result = Result.Of(Libc.ioctl(fd.Value, SetFlags, request));
        Descriptors.Close(fd.Value);
        return result;
    }

    /// <summary>Takes the name away; the namespace goes when nothing is in it any more.</summary>
    public static void Delete(string path)
    {
        // A test may have deleted it already.
        fixed (byte* target = Terminated(path))
            _ = Unmount(target, Detach);
        File.Delete(path);
    }

    static byte[] Terminated(string path) => Encoding.UTF8.GetBytes(path + '\0');

    [DllImport("libc", EntryPoint = "unshare")]
    static extern int Unshare(int flags);

    [DllImport("libc", EntryPoint = "mount")]
    static extern int Mount(byte* source, byte* target, byte* type, nuint flags, void* data);

    [DllImport("libc", EntryPoint = "umount2")]
    static extern int Unmount(byte* target, int flags);
}
