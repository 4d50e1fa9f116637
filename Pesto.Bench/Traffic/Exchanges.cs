using System.Diagnostics;
using System.Runtime.InteropServices;
using Pesto.Linux;

namespace Pesto.Bench.Traffic;

/// <summary>Requests and responses of one size over a number of TCP connections or UDP sockets, each with one request under way.</summary>
static unsafe class Exchanges
{
    struct Channel
    {
        public int Fd;
        public int Received;
        public bool Answered;
        public long Started;
    }

    // A datagram not answered in this time is lost and sent anew; a stream that is silent for longer has failed.
    const long Lost = 200_000_000;
    const long Stalled = 5_000_000_000;
    const long CheckEvery = 50_000_000;

    public static int Run(Measure measure, bool stream, SocketAddress to, int count, int size)
    {
        Outcome outcome = measure.Outcome;
        byte* buffer = (byte*)NativeMemory.AllocZeroed((nuint)size);
        Channel* channels = (Channel*)NativeMemory.AllocZeroed((nuint)count, (nuint)sizeof(Channel));
        Epoll epoll = new(Socket.MostEvents);
        for (int i = 0; i < count; i++)
        {
            channels[i].Fd = Socket.Connected(stream ? Kernel.SOCK_STREAM : Kernel.SOCK_DGRAM, to);
            epoll.Add(channels[i].Fd, Events.In, (uint)i).OrThrow("watching a socket");
            channels[i].Started = Stopwatch.GetTimestamp();
            _ = Socket.SendAll(channels[i].Fd, buffer, size);
        }

        long now = Stopwatch.GetTimestamp();
        long check = now + CheckEvery;
        int unanswered = count;
        while (outcome.Error == null && measure.GoesOn(now, warm: unanswered == 0))
        {
            int ready = Math.Max(0, epoll.Wait(50).Value);
            for (int i = 0; i < ready; i++)
            {
                Channel* channel = channels + (int)epoll.DataAt(i);
                nint n = Libc.recv(channel->Fd, buffer, (nuint)(size - channel->Received), Kernel.MSG_DONTWAIT);
                if (n <= 0)
                {
                    if (stream && !Result.Of(n).Is(Errno.EAGAIN))
                        outcome.Error = n == 0 ? "a connection was closed" : $"a connection failed: {Result.Of(n).Error.Text()}";
                    continue;
                }

                channel->Received += (int)n;
                if (channel->Received < size && stream)
                    continue;
                now = Stopwatch.GetTimestamp();
                measure.Exchanged(channel->Started, now, size);
                unanswered -= channel->Answered ? 0 : 1;
                channel->Answered = true;
                Begin(channel, buffer, size, now);
            }

            now = Stopwatch.GetTimestamp();
            if (now < check)
                continue;
            check = now + CheckEvery;
            for (int i = 0; i < count && outcome.Error == null; i++)
            {
                long age = now - channels[i].Started;
                if (stream && age > Stalled)
                {
                    outcome.Error = "a connection had no answer for five seconds";
                }
                else if (!stream && age > Lost)
                {
                    outcome.Lost += measure.Running ? 1 : 0;
                    Begin(channels + i, buffer, size, now);
                }
            }
        }

        if (outcome.Count == 0)
            outcome.Error ??= "no exchange was completed";
        return measure.End();
    }

    static void Begin(Channel* channel, byte* buffer, int size, long now)
    {
        channel->Received = 0;
        channel->Started = now;
        _ = Socket.SendAll(channel->Fd, buffer, size);
    }
}
