using System.Runtime.CompilerServices;
using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Loop;
using Pesto.Forwarder.Namespace;
using Pesto.Forwarder.Reporting;
using Pesto.Linux;

namespace Pesto.Forwarder.Tcp;

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

    readonly EventLoop _loop;
    readonly Counters _counters;
    readonly LimitLog _limits;
    readonly DescriptorBudget _budget;
    readonly Listeners _listeners;
    readonly Slots<Flow> _flows;
    readonly PipePool _pipes;
    readonly NativeArray<byte> _buffer = new(BufferSize);
    readonly NativeArray<ulong> _ready;
    readonly TimeoutList _connecting;
    readonly TimeoutList _idle;
    readonly TimeoutList _halfClosed;

    /// <summary>Ends that are dry and wait for a whole load: the flow's index, doubled, plus the end's part.</summary>
    readonly TimeoutList _loading;
    readonly TargetSocket _targetSocket;
    readonly int _kind;
    int _readyCount;

    /// <param name="keepalive">As in <see cref="SocketSettings"/>, for the sockets to targets.</param>
    public TcpFlows(
        EventLoop loop, Counters counters, LimitLog limits, DescriptorBudget budget, Listeners listeners, PipePool pipes, TcpTimes times, int keepalive)
    {
        _loop = loop;
        _counters = counters;
        _limits = limits;
        _budget = budget;
        _listeners = listeners;
        _pipes = pipes;
        int capacity = budget.Most(DescriptorUse.TcpFlow) / DescriptorsEach;
        _flows = new(capacity);
        _ready = new(capacity * 2);
        _connecting = new(capacity, times.Connect);
        _idle = new(capacity, times.Idle);
        _halfClosed = new(capacity, times.HalfClosed);
        _loading = new(capacity * 2, Patience);
        _targetSocket = new(keepalive);
        _kind = loop.AddHandler(this);
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
        /// <summary>What its descriptors are counted as.</summary>
        public DescriptorUse Use;

        /// <summary>The listening socket that it was accepted from, by the generation that it had then.</summary>
        public int Listener;
        public uint ListenerGeneration;

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

    public int PipeCount => _pipes.Count;

    /// <summary>The descriptors that a flow needs which holds nothing.</summary>
    public const int DescriptorsEach = 2;

    /// <summary>Takes over an accepted connection and connects it to the target; whatever fails resets the client.</summary>
    /// <param name="peer">The client.</param>
    /// <param name="listener">The listening socket that it came from.</param>
    /// <param name="use">What it is counted as: the budget can take it.</param>
    /// <returns>False where there is no more of something, so that another connection from the same socket would fare no better now.</returns>
    public bool Add(int client, in SocketAddress peer, int listener, DescriptorUse use, Tables.PifEntry pif, in SocketAddress wanted)
    {
        SocketAddress target = wanted;
        switch (_targetSocket.Open(pif, in peer, ref target, out SocketSource.Kind source, out Result socket))
        {
            case TargetSocket.Outcome.NoSource:
                Refuse(client, in target, Errno.EADDRNOTAVAIL);
                return true;
            case TargetSocket.Outcome.NoSocket:
                bool exhausted = LimitLog.IsExhaustion(socket.Error);
                if (exhausted)
                    _limits.Reached("sockets to targets", socket.Error);
                Shed(client);
                return !exhausted;
            case TargetSocket.Outcome.Failed when LacksPort(socket.Error, source, pif.Connects, in target):
                _limits.Reached("local ports towards a target", socket.Error);
                Shed(client);
                return false;
            case TargetSocket.Outcome.Failed:
                Refuse(client, in target, socket.Error);
                return true;
        }

        int fd = socket.Value;
        _ = _budget.TryTake(use, DescriptorsEach);
        // The budget has no more of these than there are slots.
        int index = _flows.Take();
        Flow* flow = _flows[index];
        flow->Use = use;
        flow->Listener = listener;
        flow->ListenerGeneration = _listeners.Generation(listener);
        _listeners[listener]->Flows++;
        flow->Client = new() { Fd = client, Writable = true, NoDelay = true };
        flow->Target = new() { Fd = fd };
        flow->In.Pipe = flow->Out.Pipe = -1;
        _counters.TcpTotal++;
        _counters.TcpOpen++;
        _connecting.Start(index, _loop.Now);

        uint generation = _flows.Generation(index);
        Result watched = _loop.Epoll.Add(fd, Interest, new EventKey(_kind, index, generation, 1).Word);
        if (watched.Ok)
            watched = _loop.Epoll.Add(client, Interest, new EventKey(_kind, index, generation, 0).Word);
        if (!watched.Ok)
        {
            _limits.Reached("watched descriptors", watched.Error);
            _counters.Shed++;
            Break(index);
        }

        return watched.Ok;
    }

    /// <summary>Whether no port is left to reach a target from, for whichever client: where each has its own address, that is its own affair.</summary>
    static bool LacksPort(Errno error, SocketSource.Kind source, NetworkNamespace side, in SocketAddress target) => source switch
    {
        SocketSource.Kind.Client => false,
        SocketSource.Kind.Container => error is Errno.EAGAIN or Errno.EADDRNOTAVAIL,
        _ => error == Errno.EAGAIN || (error == Errno.EADDRNOTAVAIL && HasSource(side, in target)),
    };

    /// <summary>
    /// Whether there is an address to reach a target from. Where there is none, such as towards ::1 where IPv6 is turned off,
    /// TCP fails as if all local ports were in use, but no other connection has to wait because of that. UDP has an error of
    /// its own for ports, so it tells.
    /// </summary>
    static bool HasSource(NetworkNamespace side, in SocketAddress target)
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
        _counters.Shed++;
        _ = Sockets.SetResetOnClose(client).Ok;
        Descriptors.Close(client);
    }

    void Refuse(int client, in SocketAddress target, Errno why)
    {
        _counters.Refused++;
        Log.Debug($"TCP target {target.Address}:{target.Port}: {why.Text()}");
        _ = Sockets.SetResetOnClose(client).Ok;
        Descriptors.Close(client);
    }

    public void OnEvents(EventKey key, Events events)
    {
        int index = key.Index;
        if (!key.IsOf(_flows.Generation(index)))
            return;
        Flow* flow = _flows[index];
        End* end = key.Part == 0 ? &flow->Client : &flow->Target;
        if (!flow->Connected && key.Part == 1 && !FinishConnecting(index, events))
            return;

        if ((events & Events.Priority) != 0)
            MarkUrgent(flow);
        // An urgent byte that comes alone is no reason for the kernel to call the socket readable.
        if ((events & (Events.In | Events.Priority | Events.ReadHangUp | Events.HangUp | Events.Error)) != 0)
        {
            if (end->Readable && !end->Muted && !(key.Part == 0 ? &flow->Target : &flow->Client)->Writable)
                Mute(key, end);
            if (end->Loads && !end->Readable)
                _loading.Stop((index * 2) + key.Part);
            end->Readable = true;
        }

        if ((events & (Events.ReadHangUp | Events.HangUp | Events.Error)) != 0)
            end->ReadToEnd = true;
        if ((events & (Events.Out | Events.HangUp | Events.Error)) != 0)
            end->Writable = true;
        if (flow->Connected)
            RestartIdle(index);

        if ((events & Events.Error) != 0 && EndOnError(index, key.Part))
            return;
        Move(index, key.Part);
    }

    void RestartIdle(int index)
    {
        if (_idle.Duration != 0)
            _idle.Restart(index, _loop.Now);
        if (_flows[index]->HalfClosed)
            _halfClosed.Restart(index, _loop.Now);
    }

    /// <summary>From now on an end's events come with whole loads.</summary>
    static void WaitForLoads(End* end) => end->Loads = Sockets.SetReceiveLowWater(end->Fd, Load).Ok;

    /// <summary>No load came in time: moves what is there, and everything after it at once.</summary>
    void EndLoading(int place)
    {
        int index = place / 2, part = place % 2;
        Flow* flow = _flows[index];
        End* end = part == 0 ? &flow->Client : &flow->Target;
        _loading.Stop(place);
        end->Loads = false;
        (part == 0 ? &flow->In : &flow->Out)->Streamed = 0;
        _ = Sockets.SetReceiveLowWater(end->Fd, 1).Ok;
        end->Readable = true;
        Move(index, part);
    }

    void Mute(EventKey key, End* end)
    {
        // The kernel announces whatever it has received as urgent, too, so that has to be off as well. Unmuting tells what came.
        end->Muted = _loop.Epoll.Modify(end->Fd, Interest & ~(Events.In | Events.Priority), key.Word).Ok;
    }

    /// <summary>An end has nothing more to receive: an event will tell when it has.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    void RanDry(int index, End* end)
    {
        end->Readable = false;
        if (end->Loads)
            _loading.Start((index * 2) + (end == &_flows[index]->Client ? 0 : 1), _loop.Now);
        if (end->Muted)
            Unmute(index, end);
    }

    /// <summary>If something came in the meantime, the kernel tells that at once.</summary>
    void Unmute(int index, End* end)
    {
        int part = end == &_flows[index]->Client ? 0 : 1;
        end->Muted = false;
        // It changes nothing but a mask of a descriptor that is watched: it can't fail.
        _ = _loop.Epoll.Modify(end->Fd, Interest, new EventKey(_kind, index, _flows.Generation(index), part).Word).Ok;
    }

    /// <summary>False if the target has not answered yet, or refused and the flow is gone.</summary>
    bool FinishConnecting(int index, Events events)
    {
        if ((events & (Events.Out | Events.Error | Events.HangUp)) == 0)
            return false;
        Flow* flow = _flows[index];
        if ((events & (Events.Error | Events.HangUp)) != 0)
        {
            Errno error = Sockets.PendingError(flow->Target.Fd);
            if (error != Errno.None)
            {
                _counters.Refused++;
                Log.Debug($"TCP connection to a target: {error.Text()}");
                Break(index);
                return false;
            }
        }

        flow->Connected = true;
        _connecting.Stop(index);
        if (_idle.Duration != 0)
            _idle.Start(index, _loop.Now);
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
        Flow* flow = _flows[index];
        Errno error = Sockets.PendingError(part == 0 ? flow->Client.Fd : flow->Target.Fd);
        if (error == Errno.None)
            return false;
        flow->Failed = true;
        if (flow->Connected)
            _ = Pump(index, part);
        Break(index);
        return true;
    }

    /// <summary>Moves what an event on one end may have set free: first what came from it, then what waits to go to it.</summary>
    void Move(int index, int part)
    {
        Flow* flow = _flows[index];
        if (!flow->Connected)
            return;
        Pumped from = Pump(index, part);
        Pumped to = from == Pumped.Broken ? from : Pump(index, 1 - part);
        if (from == Pumped.Broken || to == Pumped.Broken)
            Break(index);
        else if (flow->In.EndSent && flow->Out.EndSent)
            Close(index);
        else if ((from == Pumped.HasMore || to == Pumped.HasMore) && !flow->IsReady)
            MakeReady(index);
    }

    void MakeReady(int index)
    {
        _flows[index]->IsReady = true;
        _ready[_readyCount++] = new EventKey(_kind, index, _flows.Generation(index)).Word;
    }

    Pumped Pump(int index, int part)
    {
        Flow* flow = _flows[index];
        Direction* direction = part == 0 ? &flow->In : &flow->Out;
        if (direction->EndSent)
            return Pumped.Waits;
        End* from = part == 0 ? &flow->Client : &flow->Target;
        End* to = part == 0 ? &flow->Target : &flow->Client;
        ref long counter = ref part == 0 ? ref _counters.BytesIn : ref _counters.BytesOut;
        long before = counter;
        while (true)
        {
            if (direction->Held > 0)
            {
                if (!to->Writable)
                    return Pumped.Waits;
                if (!Drain(direction, to, ref counter))
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
                    flow->HalfClosed = _halfClosed.Duration != 0;
                    if (flow->HalfClosed)
                        _halfClosed.Start(index, _loop.Now);
                }

                return Pumped.Waits;
            }

            if (!from->Readable || !to->Writable)
                return Pumped.Waits;
            if (counter - before >= FairShare)
                return Pumped.HasMore;
            if (!(direction->Streaming && !flow->Urgent ? Fill(index, direction, from) : Copy(index, direction, from, to, ref counter)))
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
        Result moved = Descriptors.Splice(_pipes[direction->Pipe]->Read, to->Fd, direction->Held);
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
            _pipes.Return(direction->Pipe);
            direction->Pipe = -1;
        }

        return true;
    }

    /// <summary>Moves from the sending socket into a pipe; false if that failed.</summary>
    bool Fill(int index, Direction* direction, End* from)
    {
        int pipe = _pipes.Take();
        if (pipe < 0)
        {
            direction->Streaming = false;
            return true;
        }

        Result moved = Descriptors.Splice(from->Fd, _pipes[pipe]->Write, SpliceLength);
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

        _pipes.Return(pipe);
        // Nothing: the end of the stream, or urgent data with the end behind it. Receiving tells which.
        if (moved.Ok)
            direction->Streaming = false;
        else if (moved.Is(Errno.EAGAIN))
            RanDry(index, from);
        else
            return moved.Is(Errno.EINTR);
        return true;
    }

    /// <summary>Receives and sends on; what the receiving socket does not take goes into a pipe. False if a socket failed.</summary>
    bool Copy(int index, Direction* direction, End* from, End* to, ref long counter)
    {
        // Without a pipe for what might be left over, take only as much as the other side takes.
        if (!_pipes.EnsureSpare(BufferSize))
            return CopyUnbuffered(index, direction, from, to, ref counter);
        Result received = Sockets.Receive(from->Fd, _buffer.Pointer, BufferSize);
        if (!received.Ok)
            return ReceiveFailed(index, from, received);
        int length = received.Value;
        if (length == 0)
        {
            direction->Ended = true;
            return true;
        }

        if (length >= StreamPiece)
            direction->Streaming = true;
        if (length < BufferSize && !from->ReadToEnd && !_flows[index]->Urgent)
            RanDry(index, from);

        HastenSecond(to);
        Result sent;
        do
            sent = Sockets.Send(to->Fd, _buffer.Pointer, length);
        while (sent.Is(Errno.EINTR));
        int taken = sent.Ok ? sent.Value : 0;
        if (!sent.Ok && !sent.Is(Errno.EAGAIN))
            return false;
        counter += taken;
        return taken == length || Keep(direction, to, taken, length - taken);
    }

    /// <summary>Puts what a socket did not take into a pipe, which has the room: its size was made sure of before.</summary>
    bool Keep(Direction* direction, End* to, int offset, int length)
    {
        to->Writable = false;
        int pipe = _pipes.Take();
        Result written = Descriptors.Write(_pipes[pipe]->Write, _buffer.Pointer + offset, length);
        direction->Pipe = pipe;
        direction->Held = written.Ok ? written.Value : 0;
        return direction->Held == length;
    }

    bool CopyUnbuffered(int index, Direction* direction, End* from, End* to, ref long counter)
    {
        Result seen = Sockets.PeekAt(from->Fd, _buffer.Pointer, BufferSize);
        if (!seen.Ok)
            return ReceiveFailed(index, from, seen);
        if (seen.Value == 0)
        {
            direction->Ended = true;
            return true;
        }

        HastenSecond(to);
        Result sent = Sockets.Send(to->Fd, _buffer.Pointer, seen.Value);
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
            Result taken = Sockets.Receive(from->Fd, _buffer.Pointer, left);
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
            RanDry(index, from);
            return true;
        }

        return received.Is(Errno.EINTR);
    }

    /// <summary>Ends a flow because one side failed: the other is reset.</summary>
    void Break(int index)
    {
        Flow* flow = _flows[index];
        _ = Sockets.SetResetOnClose(flow->Client.Fd).Ok;
        _ = Sockets.SetResetOnClose(flow->Target.Fd).Ok;
        Close(index);
    }

    void Close(int index)
    {
        Flow* flow = _flows[index];
        Descriptors.Close(flow->Client.Fd);
        Descriptors.Close(flow->Target.Fd);
        if (flow->In.Pipe >= 0)
            _pipes.Discard(flow->In.Pipe);
        if (flow->Out.Pipe >= 0)
            _pipes.Discard(flow->Out.Pipe);
        if (!flow->Connected)
            _connecting.Stop(index);
        else if (_idle.Duration != 0)
            _idle.Stop(index);
        if (flow->HalfClosed)
            _halfClosed.Stop(index);
        if (flow->Client.Loads && !flow->Client.Readable)
            _loading.Stop(index * 2);
        if (flow->Target.Loads && !flow->Target.Readable)
            _loading.Stop((index * 2) + 1);
        _listeners.FlowEnded(flow->Listener, flow->ListenerGeneration);
        _budget.Give(flow->Use, DescriptorsEach);
        _flows.Return(index);
        _counters.TcpOpen--;
    }

    public long Deadline => _readyCount > 0 ? 0 : Math.Min(
        Math.Min(_connecting.Deadline, _idle.Deadline), Math.Min(_halfClosed.Deadline, _loading.Deadline));

    public void OnTime(long now)
    {
        MoveReady();
        while (_loading.Deadline <= now)
            EndLoading(_loading.First);
        while (_connecting.Deadline <= now)
        {
            _counters.Refused++;
            Break(_connecting.First);
        }

        while (_idle.Deadline <= now)
            Break(_idle.First);
        while (_halfClosed.Deadline <= now)
            Break(_halfClosed.First);
    }

    /// <summary>One more share for every flow that had more to move.</summary>
    void MoveReady()
    {
        int count = _readyCount;
        _readyCount = 0;
        for (int i = 0; i < count; i++)
        {
            // Flows that have still more write their keys at or before the place that was just read.
            EventKey key = new(_ready[i]);
            if (!key.IsOf(_flows.Generation(key.Index)))
                continue;
            _flows[key.Index]->IsReady = false;
            Move(key.Index, 0);
        }
    }
}
