using System.Diagnostics;
using System.Runtime.InteropServices;
using Pesto.Linux;

namespace Pesto.Bench.Traffic;

/// <summary>
/// Datagrams of 1,400 bytes from one socket, as many as can be sent: in batches, or cut by the kernel out of large ones
/// (UDP_SEGMENT). How many arrive, the server knows.
/// </summary>
static unsafe class Flood
{
    public const int Size = 1400;
    const int Batch = 32;
    const int Segments = 40;

    public static int Run(Measure measure, SocketAddress to, bool segmented)
    {
        int fd = Socket.Connected(Kernel.SOCK_DGRAM, to);
        if (segmented)
            Socket.Set(fd, Kernel.SOL_UDP, Kernel.UDP_SEGMENT, Size);
        Messages messages = new(segmented ? 1 : Batch, Size);
        byte* large = (byte*)NativeMemory.AllocZeroed(Size, Segments);
        while (measure.GoesOn(Stopwatch.GetTimestamp()))
        {
            nint sent = segmented ? Libc.send_wait(fd, large, Size * Segments, 0) / Size : messages.SendAll(fd);
            if (sent > 0 && measure.Running)
                measure.Outcome.Count += sent;
        }

        return measure.End();
    }
}
