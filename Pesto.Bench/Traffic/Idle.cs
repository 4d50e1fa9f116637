using System.Diagnostics;
using System.Runtime.InteropServices;
using Pesto.Linux;

namespace Pesto.Bench.Traffic;

/// <summary>Connections that are opened, used once and then held, until a line on the standard input ends it.</summary>
static unsafe class Idle
{
    const int Size = 64;
    const int SO_RCVTIMEO = 20;

    public static int Run(SocketAddress to, int count)
    {
        Measure measure = new(0, 0);
        byte* buffer = (byte*)NativeMemory.AllocZeroed(Size);
        long* limit = stackalloc long[2] { 3, 0 };
        for (int i = 0; i < count; i++)
        {
            int fd = Socket.Connected(Kernel.SOCK_STREAM, to);
            Result.Of(Libc.setsockopt(fd, Kernel.SOL_SOCKET, SO_RCVTIMEO, limit, 16)).OrThrow("setsockopt SO_RCVTIMEO");
            // The first connection that isn't served any more shows where the forwarder's limit is.
            if (!Socket.SendAll(fd, buffer, Size) || Libc.recv_wait(fd, buffer, Size, 0) != Size)
                break;
            measure.Outcome.Count++;
        }

        _ = measure.GoesOn(Stopwatch.GetTimestamp());
        _ = Console.ReadLine();
        if (measure.Outcome.Count == 0)
            measure.Outcome.Error = "no connection was served";
        return measure.End();
    }
}
