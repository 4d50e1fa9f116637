using System.Runtime.CompilerServices;
using Pesto.Linux;

namespace Pesto.Forwarder.Tcp;

/// <summary>
/// Moves the bytes of flows. Little data is cheapest by receiving and sending through one shared buffer; a stream is spliced through a pipe,
/// in the kernel. A flow holds a pipe only while bytes of it are in there. This touches pipes, the buffer and sockets, and nothing else: what
/// a flow's new state means for events and time-outs is <see cref="TcpFlows"/>' business.
/// </summary>
sealed unsafe class TcpRelay(PipePool pipes)
{
    const int BufferSize = 64 * 1024;

    /// <summary>
    /// What is asked for at a time from a stream, in bytes. A pipe is full when its slots are, and a slot holds as much as
    /// the network card or the sender put together, so it can take more than its size says.
    /// </summary>
    const int SpliceLength = 4 * 1024 * 1024;

    /// <summary>A stream whose pieces are smaller than this, in bytes, is copied and not spliced.</summary>
    const int StreamPiece = 48 * 1024;

    /// <summary>
    /// Once a stream has carried so many bytes without a pause, its events wait until there are <see cref="LowWaterMark"/> bytes to move, since
    /// each wakes the loop. What is less is moved after a while, and counting begins anew: so whoever sends large messages and waits for
    /// answers loses at most that time for every so many bytes.
    /// </summary>
    const long LongStream = 64 * 1024 * 1024;

    public const int LowWaterMark = 128 * 1024;

    readonly NativeArray<byte> _buffer = new(BufferSize);

    public enum Outcome
    {
        /// <summary>An event will come when there is more to do.</summary>
        Waits,

        /// <summary>There is more to do, but others come first.</summary>
        HasMore,

        /// <summary>A socket failed.</summary>
        Broken,
    }

    /// <summary>Moves the stream of one end to the other: bytes, then the end of the stream.</summary>
    /// <param name="share">After so many bytes others come first.</param>
    /// <param name="moved">Bytes that the other end took.</param>
    public Outcome Move(TcpFlow* flow, int part, long share, out long moved)
    {
        TcpEnd* from = TcpFlow.End(flow, part), to = TcpFlow.End(flow, 1 - part);
        moved = 0;
        if (from->EndSent)
            return Outcome.Waits;
        while (true)
        {
            if (from->Held > 0)
            {
                if (!to->Writable)
                    return Outcome.Waits;
                if (!Drain(from, to, ref moved))
                    return Outcome.Broken;
                continue;
            }

            if (from->Ended)
            {
                if (flow->Failed)
                    return Outcome.Broken;
                from->EndSent = true;
                // Where this was the last to end, closing tells the other side, and saves a call. Else it fails only if the
                // other side is gone already, of which an event tells.
                if (!to->EndSent)
                    _ = Sockets.Shutdown(to->Fd, Sockets.ShutWrite).Ok;
                return Outcome.Waits;
            }

            if (!from->Readable || !to->Writable)
                return Outcome.Waits;
            if (moved >= share)
                return Outcome.HasMore;
            if (!(from->Streaming && !flow->Urgent ? Fill(from) : Copy(flow, from, to, ref moved)))
                return Outcome.Broken;
        }
    }

    /// <summary>Gives back what a flow holds, which is about to be closed.</summary>
    public void Release(TcpEnd* from)
    {
        if (from->Pipe >= 0)
            pipes.Discard(from->Pipe);
    }

    /// <summary>Has whatever comes to an end be announced at once again.</summary>
    public static void EndLowWater(TcpEnd* from)
    {
        from->LowWater = false;
        from->Streamed = 0;
        _ = Sockets.SetReceiveLowWater(from->Fd, 1).Ok;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static void SetNoDelayOnSecond(TcpEnd* to)
    {
        if (to->NoDelay)
            return;
        to->NoDelay = to->HasSent;
        to->HasSent = true;
        if (to->NoDelay)
            _ = Sockets.SetNoDelay(to->Fd).Ok;
    }

    /// <summary>Moves from the pipe into the receiving socket; false if that failed.</summary>
    bool Drain(TcpEnd* from, TcpEnd* to, ref long moved)
    {
        SetNoDelayOnSecond(to);
        Result drained = Descriptors.Splice(pipes[from->Pipe]->Read, to->Fd, from->Held);
        if (!drained.Ok)
        {
            if (!drained.Is(Errno.EAGAIN))
                return drained.Is(Errno.EINTR);
            to->Writable = false;
            return true;
        }

        from->Held -= drained.Value;
        moved += drained.Value;
        if (from->Held == 0)
        {
            pipes.Return(from->Pipe);
            from->Pipe = -1;
        }

        return true;
    }

    /// <summary>Moves from the sending socket into a pipe; false if that failed.</summary>
    bool Fill(TcpEnd* from)
    {
        int pipe = pipes.Take();
        if (pipe < 0)
        {
            from->Streaming = false;
            return true;
        }

        Result filled = Descriptors.Splice(from->Fd, pipes[pipe]->Write, SpliceLength);
        if (filled.Ok && filled.Value > 0)
        {
            from->Pipe = pipe;
            from->Held = filled.Value;
            from->Streaming = filled.Value >= StreamPiece;
            from->Streamed += filled.Value;
            if (from->Streamed >= LongStream && !from->LowWater)
                from->LowWater = Sockets.SetReceiveLowWater(from->Fd, LowWaterMark).Ok;
            return true;
        }

        pipes.Return(pipe);
        if (filled.Ok)
        {
            // The end of the stream, or urgent data with the end behind it, of which no event has told yet. Receiving tells which, and
            // must not skip the urgent byte.
            from->Streaming = false;
            _ = Sockets.SetUrgentInline(from->Fd).Ok;
            return true;
        }

        return ReceiveFailed(from, filled);
    }

    /// <summary>Receives and sends on; what the receiving socket does not take goes into a pipe. False if a socket failed.</summary>
    bool Copy(TcpFlow* flow, TcpEnd* from, TcpEnd* to, ref long moved)
    {
        // Without a pipe for what might be left over, take only as much as the other side takes.
        if (!pipes.EnsureSpare(BufferSize))
            return CopyUnbuffered(from, to, ref moved);
        Result received = Sockets.Receive(from->Fd, _buffer.Pointer, BufferSize);
        if (!received.Ok)
            return ReceiveFailed(from, received);
        int length = received.Value;
        if (length == 0)
        {
            from->Ended = true;
            return true;
        }

        if (length >= StreamPiece)
            from->Streaming = true;
        if (length < BufferSize && !from->ReadToEnd && !flow->Urgent)
            from->Readable = false;

        SetNoDelayOnSecond(to);
        Result sent;
        do
            sent = Sockets.Send(to->Fd, _buffer.Pointer, length);
        while (sent.Is(Errno.EINTR));
        int taken = sent.Ok ? sent.Value : 0;
        if (!sent.Ok && !sent.Is(Errno.EAGAIN))
            return false;
        moved += taken;
        return taken == length || Keep(from, to, taken, length - taken);
    }

    /// <summary>Puts what a socket did not take into a pipe, which has the room: its size was made sure of before.</summary>
    bool Keep(TcpEnd* from, TcpEnd* to, int offset, int length)
    {
        to->Writable = false;
        int pipe = pipes.Take();
        Result written = Descriptors.Write(pipes[pipe]->Write, _buffer.Pointer + offset, length);
        from->Pipe = pipe;
        from->Held = written.Ok ? written.Value : 0;
        return from->Held == length;
    }

    bool CopyUnbuffered(TcpEnd* from, TcpEnd* to, ref long moved)
    {
        Result seen = Sockets.PeekAt(from->Fd, _buffer.Pointer, BufferSize);
        if (!seen.Ok)
            return ReceiveFailed(from, seen);
        if (seen.Value == 0)
        {
            from->Ended = true;
            return true;
        }

        SetNoDelayOnSecond(to);
        Result sent = Sockets.Send(to->Fd, _buffer.Pointer, seen.Value);
        if (!sent.Ok)
        {
            // An interrupted call is made again at once: no event would tell when.
            to->Writable = !sent.Is(Errno.EAGAIN);
            return sent.Is(Errno.EAGAIN) || sent.Is(Errno.EINTR);
        }

        moved += sent.Value;
        to->Writable = sent.Value == seen.Value;
        for (int left = sent.Value; left > 0;)
        {
            Result taken = Sockets.Receive(from->Fd, _buffer.Pointer, left);
            if (!taken.Ok && !taken.Is(Errno.EINTR))
                return false;
            left -= taken.Ok ? taken.Value : 0;
        }

        return true;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static bool ReceiveFailed(TcpEnd* from, Result received)
    {
        from->Readable = !received.Is(Errno.EAGAIN);
        return received.Is(Errno.EAGAIN) || received.Is(Errno.EINTR);
    }
}
