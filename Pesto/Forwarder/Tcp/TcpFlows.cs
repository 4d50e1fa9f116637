using System.Runtime.CompilerServices;
using Pesto.Linux;

namespace Pesto.Forwarder;

/// <summary>
/// The forwarded TCP connections: two sockets each, and what goes from either to the other. Little data is cheapest by
/// receiving and sending through one shared buffer; a stream is spliced through a pipe, in the kernel. A flow holds a
/// pipe only while bytes of it are in there. Half-close, reset and back-pressure pass through.
/// </summary>
public sealed unsafe class TcpFlows : IEventHandler, ITimed
{
    const int BufferSize = 64 * 1024;

    /// <summary>What one direction of a flow may move before others get their turn, in bytes.</summary>
    const int FairShare = 2 * 1024 * 1024;

    /// <summary>
    /// What is asked for at a time from a stream, in bytes. A pipe is full when its slots are, and a slot holds as much as
    /// the network card or the sender put together, so it can take more than its size says.
    /// </summary>
    const int SpliceLength = 4 * 1024 * 1024;

    /// <summary>A direction whose pieces are smaller than this, in bytes, is copied and not spliced.</summary>
    const int StreamPiece = 48 * 1024;

    /// <summary>
    /// Once a direction has carried so many bytes without a pause, its events wait until there are <see cref="Load"/> bytes to
    /// move, since each wakes the loop. What is less is moved after <see cref="Patience"/> milliseconds, and counting begins
    /// anew: so whoever sends large messages and waits for answers loses at most that time for every so many bytes.
    /// </summary>
    const long LongStream = 64 * 1024 * 1024;

    const int Load = 128 * 1024;

    const long Patience = 2;

    const Events Interest = Events.In | Events.Out | Events.ReadHangUp | Events.Priority | Events.Edge;

    readonly Loop loop;
    readonly Counters counters;
    readonly Limits limits;
    readonly Slots<Flow> flows;
    readonly Pipes pipes;
    readonly NativeArray<byte> buffer = new(BufferSize);
    readonly NativeArray<ulong> ready;
    readonly Waiting connecting;
    readonly Waiting idle;
    readonly Waiting halfClosed;

    /// <summary>Ends that are dry and wait for a whole load: the flow's index, doubled, plus the end's part.</summary>
    readonly Waiting loading;
    readonly int keepalive;
    readonly int kind;
    int readyCount;

    /// <param name="capacity">The most flows at a time.</param>
    /// <param name="descriptors">How many may be open in all; pipes are made only below that.</param>
    /// <param name="keepalive">As in <see cref="SocketSettings"/>, for the sockets to targets.</param>
    public TcpFlows(Loop loop, Counters counters, Limits limits, int capacity, int descriptors, TcpTimes times, int keepalive)
    {
        this.loop = loop;
        this.counters = counters;
        this.limits = limits;
        this.flows = new(capacity);
        this.pipes = new(capacity, descriptors);
        this.ready = new(capacity * 2);
        this.connecting = new(capacity, times.Connect);
        this.idle = new(capacity, times.Idle);
        this.halfClosed = new(capacity, times.HalfClosed);
        this.loading = new(capacity * 2, Patience);
        this.keepalive = keepalive;
        this.kind = loop.AddHandler(this);
        limits.MakeRoom += () => this.MakeRoom();
        loop.AddTimed(this);
    }

    struct End
    {
        public int Fd;

        /// <summary>Something may be there to receive: cleared when the kernel has said that there is nothing.</summary>
        public bool Readable;

        public bool Writable;

        /// <summary>
        /// What is sent leaves at once. Accepted sockets have it from their listening socket; those to targets get it when
        /// they send for the second time, since the first is never held back, and many flows have no second.
        /// </summary>
        public bool NoDelay;

        public bool HasSent;

        /// <summary>
        /// Events for what it receives are off: a sender that is faster than the other end would wake the loop for every piece,
        /// only to find that there is nowhere to put it.
        /// </summary>
        public bool Muted;

        /// <summary>Events for what it receives come when there is a whole <see cref="Load"/>.</summary>
        public bool Loads;

        /// <summary>No new event may come for what is still to be received, so receive until the kernel says that there is nothing.</summary>
        public bool ReadToEnd;
    }

    struct Direction
    {
        /// <summary>The pipe that holds bytes on their way, or -1.</summary>
        public int Pipe;

        /// <summary>Bytes in the pipe.</summary>
        public int Held;

        /// <summary>The pieces are large: splice.</summary>
        public bool Streaming;

        /// <summary>Bytes spliced without a pause.</summary>
        public long Streamed;

        /// <summary>The sending end has ended its stream.</summary>
        public bool Ended;

        /// <summary>The receiving end has been told so.</summary>
        public bool EndSent;
    }

    struct Flow
    {
        public End Client;
        public End Target;
        public Direction In;
        public Direction Out;
        public bool Connected;
        public bool Urgent;

        /// <summary>An end was reset: its stream seems to end now, and must not be taken for one that was complete.</summary>
        public bool Failed;
        public bool IsReady;

        /// <summary>It waits for the end of its other half.</summary>
        public bool HalfClosed;
    }

    enum Pumped
    {
        /// <summary>An event will come when there is more to do.</summary>
        Waits,

        /// <summary>There is more to do, but others come first.</summary>
        HasMore,

        /// <summary>A socket failed.</summary>
        Broken,
    }

    public int Open => this.flows.Count;

    public int PipeCount => this.pipes.Count;

    /// <summary>The descriptors that a flow needs which holds nothing.</summary>
    public const int DescriptorsEach = 2;

    /// <summary>Gives back the descriptors of what is only kept at hand; false if there is nothing of that kind.</summary>
    public bool MakeRoom() => this.pipes.DiscardIdle();

    public int DescriptorCount => DescriptorsEach * (this.flows.Count + this.pipes.Count);

    /// <summary>Takes over an accepted connection and connects it to the target; whatever fails resets the client.</summary>
    public void Add(int client, Side side, in SocketAddress target)
    {
        Result socket = side.Tcp(target.Family);
        if (!socket.Ok)
        {
            if (this.limits.IsExhaustion(socket.Error))
                this.limits.Reached("sockets to targets", socket.Error);
            this.Shed(client);
            return;
        }

        int fd = socket.Value;
        if (this.keepalive != 0)
            _ = Sockets.SetKeepalive(fd, this.keepalive).Ok;
        if (side.Paces(fd) && target.Address.IsLoopback)
            _ = CongestionControl.Reno.ApplyTo(fd).Ok;
        Result connected = Sockets.Connect(fd, in target);
        int index = connected.Ok || connected.Is(Errno.EINPROGRESS) ? this.flows.Take() : -1;
        if (index < 0)
        {
            Descriptors.Close(fd);
            if (connected.Is(Errno.EAGAIN) || (connected.Is(Errno.EADDRNOTAVAIL) && HasSource(side, in target)))
            {
                this.limits.Reached("local ports towards a target", connected.Error);
                this.Shed(client);
            }
            else if (connected.Ok || connected.Is(Errno.EINPROGRESS))
            {
                this.limits.Reached("TCP flows", Errno.None);
                this.Shed(client);
            }
            else
            {
                this.Refuse(client, in target, connected.Error);
            }

            return;
        }

        Flow* flow = this.flows[index];
        flow->Client = new() { Fd = client, Writable = true, NoDelay = true };
        flow->Target = new() { Fd = fd };
        flow->In.Pipe = flow->Out.Pipe = -1;
        this.counters.TcpTotal++;
        this.counters.TcpOpen++;
        this.connecting.Start(index, this.loop.Now);

        uint generation = this.flows.Generation(index);
        Result watched = this.loop.Epoll.Watch(fd, Interest, new EventKey(this.kind, index, generation, 1).Word);
        if (watched.Ok)
            watched = this.loop.Epoll.Watch(client, Interest, new EventKey(this.kind, index, generation, 0).Word);
        if (!watched.Ok)
        {
            this.limits.Reached("watched descriptors", watched.Error);
            this.counters.Shed++;
            this.Break(index);
        }
    }

    /// <summary>
    /// Whether there is an address to reach a target from. Where there is none, such as towards ::1 where IPv6 is turned off,
    /// TCP fails as if all local ports were in use, but no other connection has to wait because of that. UDP has an error of
    /// its own for ports, so it tells.
    /// </summary>
    static bool HasSource(Side side, in SocketAddress target)
    {
        Result socket = side.Udp(target.Family);
        if (!socket.Ok)
            return true;
        bool found = !Sockets.Connect(socket.Value, in target).Is(Errno.EADDRNOTAVAIL);
        Descriptors.Close(socket.Value);
        return found;
    }

    void Shed(int client)
    {
        this.counters.Shed++;
        _ = Sockets.SetResetOnClose(client).Ok;
        Descriptors.Close(client);
    }

    void Refuse(int client, in SocketAddress target, Errno why)
    {
        this.counters.Refused++;
        Log.Debug($"TCP target {target.Address}:{target.Port}: {why.Text()}");
        _ = Sockets.SetResetOnClose(client).Ok;
        Descriptors.Close(client);
    }

    public void OnEvents(EventKey key, Events events)
    {
        int index = key.Index;
        if (!key.IsOf(this.flows.Generation(index)))
            return;
        Flow* flow = this.flows[index];
        End* end = key.Part == 0 ? &flow->Client : &flow->Target;
        if (!flow->Connected && key.Part == 1 && !this.FinishConnecting(index, events))
            return;

        if ((events & Events.Priority) != 0)
            this.MarkUrgent(flow);
        // An urgent byte that comes alone is no reason for the kernel to call the socket readable.
        if ((events & (Events.In | Events.Priority | Events.ReadHangUp | Events.HangUp | Events.Error)) != 0)
        {
            if (end->Readable && !end->Muted && !(key.Part == 0 ? &flow->Target : &flow->Client)->Writable)
                this.Mute(key, end);
            if (end->Loads && !end->Readable)
                this.loading.Stop((index * 2) + key.Part);
            end->Readable = true;
        }

        if ((events & (Events.ReadHangUp | Events.HangUp | Events.Error)) != 0)
            end->ReadToEnd = true;
        if ((events & (Events.Out | Events.HangUp | Events.Error)) != 0)
            end->Writable = true;
        if (flow->Connected)
            this.RestartIdle(index);

        if ((events & Events.Error) != 0 && this.EndOnError(index, key.Part))
            return;
        this.Move(index, key.Part);
    }

    void RestartIdle(int index)
    {
        if (this.idle.Duration != 0)
            this.idle.Restart(index, this.loop.Now);
        if (this.flows[index]->HalfClosed)
            this.halfClosed.Restart(index, this.loop.Now);
    }

    /// <summary>From now on an end's events come with whole loads.</summary>
    static void WaitForLoads(End* end) => end->Loads = Sockets.SetLowWater(end->Fd, Load).Ok;

    /// <summary>No load came in time: moves what is there, and everything after it at once.</summary>
    void EndLoading(int place)
    {
        int index = place / 2, part = place % 2;
        Flow* flow = this.flows[index];
        End* end = part == 0 ? &flow->Client : &flow->Target;
        this.loading.Stop(place);
        end->Loads = false;
        (part == 0 ? &flow->In : &flow->Out)->Streamed = 0;
        _ = Sockets.SetLowWater(end->Fd, 1).Ok;
        end->Readable = true;
        this.Move(index, part);
    }

    void Mute(EventKey key, End* end)
    {
        // The kernel announces whatever it has received as urgent, too, so that has to be off as well. Unmuting tells what came.
        end->Muted = this.loop.Epoll.Change(end->Fd, Interest & ~(Events.In | Events.Priority), key.Word).Ok;
    }

    /// <summary>An end has nothing more to receive: an event will tell when it has.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    void RanDry(int index, End* end)
    {
        end->Readable = false;
        if (end->Loads)
            this.loading.Start((index * 2) + (end == &this.flows[index]->Client ? 0 : 1), this.loop.Now);
        if (end->Muted)
            this.Unmute(index, end);
    }

    /// <summary>If something came in the meantime, the kernel tells that at once.</summary>
    void Unmute(int index, End* end)
    {
        int part = end == &this.flows[index]->Client ? 0 : 1;
        end->Muted = false;
        // It changes nothing but a mask of a descriptor that is watched: it can't fail.
        _ = this.loop.Epoll.Change(end->Fd, Interest, new EventKey(this.kind, index, this.flows.Generation(index), part).Word).Ok;
    }

    /// <summary>False if the target has not answered yet, or refused and the flow is gone.</summary>
    bool FinishConnecting(int index, Events events)
    {
        if ((events & (Events.Out | Events.Error | Events.HangUp)) == 0)
            return false;
        Flow* flow = this.flows[index];
        if ((events & (Events.Error | Events.HangUp)) != 0)
        {
            Errno error = Sockets.PendingError(flow->Target.Fd);
            if (error != Errno.None)
            {
                this.counters.Refused++;
                Log.Debug($"TCP connection to a target: {error.Text()}");
                this.Break(index);
                return false;
            }
        }

        flow->Connected = true;
        this.connecting.Stop(index);
        if (this.idle.Duration != 0)
            this.idle.Start(index, this.loop.Now);
        return true;
    }

    /// <summary>Urgent data makes the kernel stop early when it receives and when it splices: from now on receive, and until nothing is left.</summary>
    void MarkUrgent(Flow* flow)
    {
        if (flow->Urgent)
            return;
        flow->Urgent = true;
        _ = Sockets.SetUrgentInline(flow->Client.Fd).Ok;
        _ = Sockets.SetUrgentInline(flow->Target.Fd).Ok;
    }

    /// <summary>A socket was reset or failed: what it received before still goes on, then the other side is reset too.</summary>
    bool EndOnError(int index, int part)
    {
        Flow* flow = this.flows[index];
        Errno error = Sockets.PendingError(part == 0 ? flow->Client.Fd : flow->Target.Fd);
        if (error == Errno.None)
            return false;
        flow->Failed = true;
        if (flow->Connected)
            _ = this.Pump(index, part);
        this.Break(index);
        return true;
    }

    /// <summary>Moves what an event on one end may have set free: first what came from it, then what waits to go to it.</summary>
    void Move(int index, int part)
    {
        Flow* flow = this.flows[index];
        if (!flow->Connected)
            return;
        Pumped from = this.Pump(index, part);
        Pumped to = from == Pumped.Broken ? from : this.Pump(index, 1 - part);
        if (from == Pumped.Broken || to == Pumped.Broken)
            this.Break(index);
        else if (flow->In.EndSent && flow->Out.EndSent)
            this.Close(index);
        else if ((from == Pumped.HasMore || to == Pumped.HasMore) && !flow->IsReady)
            this.MakeReady(index);
    }

    void MakeReady(int index)
    {
        this.flows[index]->IsReady = true;
        this.ready[this.readyCount++] = new EventKey(this.kind, index, this.flows.Generation(index)).Word;
    }

    Pumped Pump(int index, int part)
    {
        Flow* flow = this.flows[index];
        Direction* direction = part == 0 ? &flow->In : &flow->Out;
        if (direction->EndSent)
            return Pumped.Waits;
        End* from = part == 0 ? &flow->Client : &flow->Target;
        End* to = part == 0 ? &flow->Target : &flow->Client;
        ref long counter = ref part == 0 ? ref this.counters.BytesIn : ref this.counters.BytesOut;
        long before = counter;
        while (true)
        {
            if (direction->Held > 0)
            {
                if (!to->Writable)
                    return Pumped.Waits;
                if (!this.Drain(direction, to, ref counter))
                    return Pumped.Broken;
                continue;
            }

            if (direction->Ended)
            {
                if (flow->Failed)
                    return Pumped.Broken;
                direction->EndSent = true;
                // Where this was the last to end, closing tells the other side, and saves a call. Else it fails only if the
                // other side is gone already, of which an event tells.
                if (!flow->In.EndSent || !flow->Out.EndSent)
                {
                    _ = Sockets.Shutdown(to->Fd, Sockets.ShutWrite).Ok;
                    flow->HalfClosed = this.halfClosed.Duration != 0;
                    if (flow->HalfClosed)
                        this.halfClosed.Start(index, this.loop.Now);
                }

                return Pumped.Waits;
            }

            if (!from->Readable || !to->Writable)
                return Pumped.Waits;
            if (counter - before >= FairShare)
                return Pumped.HasMore;
            if (!(direction->Streaming && !flow->Urgent ? this.Fill(index, direction, from) : this.Copy(index, direction, from, to, ref counter)))
                return Pumped.Broken;
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static void HastenSecond(End* to)
    {
        if (to->NoDelay)
            return;
        to->NoDelay = to->HasSent;
        to->HasSent = true;
        if (to->NoDelay)
            _ = Sockets.SetNoDelay(to->Fd).Ok;
    }

    /// <summary>Moves from the pipe into the receiving socket; false if that failed.</summary>
    bool Drain(Direction* direction, End* to, ref long counter)
    {
        HastenSecond(to);
        Result moved = Descriptors.Splice(this.pipes[direction->Pipe]->Read, to->Fd, direction->Held);
        if (!moved.Ok)
        {
            if (!moved.Is(Errno.EAGAIN))
                return moved.Is(Errno.EINTR);
            to->Writable = false;
            return true;
        }

        direction->Held -= moved.Value;
        counter += moved.Value;
        if (direction->Held == 0)
        {
            this.pipes.Return(direction->Pipe);
            direction->Pipe = -1;
        }

        return true;
    }

    /// <summary>Moves from the sending socket into a pipe; false if that failed.</summary>
    bool Fill(int index, Direction* direction, End* from)
    {
        int pipe = this.pipes.Take();
        if (pipe < 0)
        {
            direction->Streaming = false;
            return true;
        }

        Result moved = Descriptors.Splice(from->Fd, this.pipes[pipe]->Write, SpliceLength);
        if (moved.Ok && moved.Value > 0)
        {
            direction->Pipe = pipe;
            direction->Held = moved.Value;
            direction->Streaming = moved.Value >= StreamPiece;
            direction->Streamed += moved.Value;
            if (direction->Streamed >= LongStream && !from->Loads)
                WaitForLoads(from);
            return true;
        }

        this.pipes.Return(pipe);
        // Nothing: the end of the stream, or urgent data with the end behind it. Receiving tells which.
        if (moved.Ok)
            direction->Streaming = false;
        else if (moved.Is(Errno.EAGAIN))
            this.RanDry(index, from);
        else
            return moved.Is(Errno.EINTR);
        return true;
    }

    /// <summary>Receives and sends on; what the receiving socket does not take goes into a pipe. False if a socket failed.</summary>
    bool Copy(int index, Direction* direction, End* from, End* to, ref long counter)
    {
        // Without a pipe for what might be left over, take only as much as the other side takes.
        if (!this.pipes.EnsureSpare(BufferSize))
            return this.CopyUnbuffered(index, direction, from, to, ref counter);
        Result received = Sockets.Receive(from->Fd, this.buffer.Pointer, BufferSize);
        if (!received.Ok)
            return this.ReceiveFailed(index, from, received);
        int length = received.Value;
        if (length == 0)
        {
            direction->Ended = true;
            return true;
        }

        if (length >= StreamPiece)
            direction->Streaming = true;
        if (length < BufferSize && !from->ReadToEnd && !this.flows[index]->Urgent)
            this.RanDry(index, from);

        HastenSecond(to);
        Result sent;
        do
            sent = Sockets.Send(to->Fd, this.buffer.Pointer, length);
        while (sent.Is(Errno.EINTR));
        int taken = sent.Ok ? sent.Value : 0;
        if (!sent.Ok && !sent.Is(Errno.EAGAIN))
            return false;
        counter += taken;
        return taken == length || this.Keep(direction, to, taken, length - taken);
    }

    /// <summary>Puts what a socket did not take into a pipe, which has the room: its size was made sure of before.</summary>
    bool Keep(Direction* direction, End* to, int offset, int length)
    {
        to->Writable = false;
        int pipe = this.pipes.Take();
        Result written = Descriptors.Write(this.pipes[pipe]->Write, this.buffer.Pointer + offset, length);
        direction->Pipe = pipe;
        direction->Held = written.Ok ? written.Value : 0;
        return direction->Held == length;
    }

    bool CopyUnbuffered(int index, Direction* direction, End* from, End* to, ref long counter)
    {
        Result seen = Sockets.PeekAt(from->Fd, this.buffer.Pointer, BufferSize);
        if (!seen.Ok)
            return this.ReceiveFailed(index, from, seen);
        if (seen.Value == 0)
        {
            direction->Ended = true;
            return true;
        }

        HastenSecond(to);
        Result sent = Sockets.Send(to->Fd, this.buffer.Pointer, seen.Value);
        if (!sent.Ok)
        {
            // An interrupted call is made again at once: no event would tell when.
            to->Writable = !sent.Is(Errno.EAGAIN);
            return sent.Is(Errno.EAGAIN) || sent.Is(Errno.EINTR);
        }

        counter += sent.Value;
        to->Writable = sent.Value == seen.Value;
        for (int left = sent.Value; left > 0;)
        {
            Result taken = Sockets.Receive(from->Fd, this.buffer.Pointer, left);
            if (!taken.Ok && !taken.Is(Errno.EINTR))
                return false;
            left -= taken.Ok ? taken.Value : 0;
        }

        return true;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    bool ReceiveFailed(int index, End* from, Result received)
    {
        if (received.Is(Errno.EAGAIN))
        {
            this.RanDry(index, from);
            return true;
        }

        return received.Is(Errno.EINTR);
    }

    /// <summary>Ends a flow because one side failed: the other is reset.</summary>
    void Break(int index)
    {
        Flow* flow = this.flows[index];
        _ = Sockets.SetResetOnClose(flow->Client.Fd).Ok;
        _ = Sockets.SetResetOnClose(flow->Target.Fd).Ok;
        this.Close(index);
    }

    void Close(int index)
    {
        Flow* flow = this.flows[index];
        Descriptors.Close(flow->Client.Fd);
        Descriptors.Close(flow->Target.Fd);
        if (flow->In.Pipe >= 0)
            this.pipes.Discard(flow->In.Pipe);
        if (flow->Out.Pipe >= 0)
            this.pipes.Discard(flow->Out.Pipe);
        if (!flow->Connected)
            this.connecting.Stop(index);
        else if (this.idle.Duration != 0)
            this.idle.Stop(index);
        if (flow->HalfClosed)
            this.halfClosed.Stop(index);
        if (flow->Client.Loads && !flow->Client.Readable)
            this.loading.Stop(index * 2);
        if (flow->Target.Loads && !flow->Target.Readable)
            this.loading.Stop((index * 2) + 1);
        this.flows.Return(index);
        this.counters.TcpOpen--;
        this.limits.Released();
    }

    public long Deadline => this.readyCount > 0 ? 0 : Math.Min(
        Math.Min(this.connecting.Deadline, this.idle.Deadline), Math.Min(this.halfClosed.Deadline, this.loading.Deadline));

    public void OnTime(long now)
    {
        this.MoveReady();
        while (this.loading.Deadline <= now)
            this.EndLoading(this.loading.First);
        while (this.connecting.Deadline <= now)
        {
            this.counters.Refused++;
            this.Break(this.connecting.First);
        }

        while (this.idle.Deadline <= now)
            this.Break(this.idle.First);
        while (this.halfClosed.Deadline <= now)
            this.Break(this.halfClosed.First);
    }

    /// <summary>One more share for every flow that had more to move.</summary>
    void MoveReady()
    {
        int count = this.readyCount;
        this.readyCount = 0;
        for (int i = 0; i < count; i++)
        {
            // Flows that have still more write their keys at or before the place that was just read.
            EventKey key = new(this.ready[i]);
            if (!key.IsOf(this.flows.Generation(key.Index)))
                continue;
            this.flows[key.Index]->IsReady = false;
            this.Move(key.Index, 0);
        }
    }
}
