using System.Runtime.InteropServices;
using Pesto.Linux;

namespace Pesto.Tests.Fuzz;

/// <summary>Two connected UNIX sockets: a test speaks at one end, in one go, and what is tested finds it at the other.</summary>
static unsafe class Pair
{
    const int Unix = 1;
    public const int Stream = 1, Datagram = 2, NonBlocking = 0x800;

    [DllImport("libc", SetLastError = true)]
    static extern int socketpair(int family, int type, int protocol, int* ends);

    public static (int Theirs, int Ours) Open(int type)
    {
        int* ends = stackalloc int[2];
        Assert.Equal(0, socketpair(Unix, type, 0, ends));
        return (ends[0], ends[1]);
    }

    /// <summary>Sends bytes from our end, as many as there is room for.</summary>
    public static void Say(int ours, ReadOnlySpan<byte> bytes)
    {
        fixed (byte* p = bytes)
        {
            int sent = 0;
            while (sent < bytes.Length && Sockets.Send(ours, p + sent, bytes.Length - sent) is { Ok: true, Value: int more })
                sent += more;
        }
    }
}
