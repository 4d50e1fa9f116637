using System.Diagnostics;
using System.Runtime.InteropServices;
using Pesto.Linux;

namespace Pesto.Bench.Traffic;

/// <summary>TCP connections that carry as much as they can in one direction: up to a sink, or down from a source.</summary>
static unsafe class Streams
{
    public static int Run(Measure measure, bool up, SocketAddress to, int count)
    {
        byte* buffer = (byte*)NativeMemory.AllocZeroed(Server.Chunk);
        Epoll epoll = new(Socket.MostEvents);
        for (int i = 0; i < count; i++)
        {
            int fd = Socket.Connected(Kernel.SOCK_STREAM, to);
            epoll.Add(fd, up ? Events.Out : Events.In, (uint)fd).OrThrow("watching a socket");
        }

        Outcome outcome = measure.Outcome;
        while (outcome.Error == null && measure.GoesOn(Stopwatch.GetTimestamp()))
        {
            int ready = Math.Max(0, epoll.Wait(50).Value);
            for (int i = 0; i < ready; i++)
            {
                int fd = (int)epoll.DataAt(i);
                nint n = up
                    ? Libc.send(fd, buffer, Server.Chunk, Kernel.MSG_DONTWAIT | Kernel.MSG_NOSIGNAL)
                    : Libc.recv(fd, buffer, Server.Chunk, Kernel.MSG_DONTWAIT);
                if (n <= 0 && !Result.Of(n).Is(Errno.EAGAIN))
                    outcome.Error = n == 0 ? "a stream was closed" : $"a stream failed: {Result.Of(n).Error.Text()}";
                else if (n > 0 && measure.Running)
                    outcome.Bytes += n;
            }
        }

        if (outcome.Bytes == 0)
            outcome.Error ??= "nothing was carried";
        return measure.End();
    }
}
