using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Loop;
using Pesto.Forwarder.Namespace;
using Pesto.Forwarder.Reporting;
using Pesto.Linux;

namespace Pesto.Forwarder.Tcp;

/// <summary>
/// The life of forwarded TCP connections: two sockets each. One begins with a client's accepted connection and one to the target; it ends when
/// both streams have ended, when an end fails, of which the other is told by a reset, or when nothing has moved for too long. What is moved
/// and how is <see cref="TcpRelay"/>'s business; when is decided here:
/// <list type="bullet">
/// <item>little data at once, when an event tells of it;</item>
/// <item>streams, and what is left after a fair share, in turns after the events (<see cref="ReadyList"/>).</item>
/// </list>
/// </summary>
public sealed unsafe class TcpFlows : IEventHandler, ITimed, IReady
{
    /// <summary>The descriptors of a flow that holds no pipe.</summary>
    public const int DescriptorsEach = 2;

    /// <summary>What one direction of a flow may move when an event comes, in bytes: more is for its turn.</summary>
    const long EventShare = 64 * 1024;

    /// <summary>What one direction of a flow may move in a turn, in bytes: shared by those that have a turn, down to the smaller number.</summary>
    const long TurnShare = 2 * 1024 * 1024, LeastTurnShare = 256 * 1024;

    /// <summary>How long what is less than the low-water mark is left in a socket, in milliseconds.</summary>
    const long LowWaterPatience = 2;

    /// <summary>How many of a list's items are looked at in one iteration when their time is over: each takes some microseconds.</summary>
    const int MostTimedOut = 64;

    const Events Interest = Events.In | Events.Out | Events.ReadHangUp | Events.Priority | Events.Edge;

    const Events AnyError = Events.HangUp | Events.Error;

    readonly EventLoop _loop;
    readonly Counters _counters;
    readonly LimitLog _limits;
    readonly DescriptorBudget _budget;
    readonly Listeners _listeners;
    readonly PipePool _pipes;
    readonly TcpRelay _relay;
    readonly TargetSocket _targetSocket;
    readonly Slots<TcpFlow> _flows;
    readonly ReadyList _ready;
    readonly TimeoutList _connecting;
    readonly TimeoutList _idle;
    readonly TimeoutList _halfClosed;

    /// <summary>Ends with a low-water mark that have nothing to receive: the flow's index, doubled, plus the end's place.</summary>
    readonly TimeoutList _lowWater;
    readonly int _kind;
    long _turnShare;

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
        _relay = new(pipes);
        _targetSocket = new(keepalive);
        int capacity = budget.Most(DescriptorUse.TcpFlow) / DescriptorsEach;
        _flows = new(capacity);
        _ready = new(capacity);
        _connecting = new(capacity, times.Connect);
        _idle = new(capacity, times.Idle);
        _halfClosed = new(capacity, times.HalfClosed);
        _lowWater = new(capacity * 2, LowWaterPatience);
        _kind = loop.AddHandler(this);
    }

    public int PipeCount => _pipes.Count;

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

        return Begin(client, socket.Value, listener, use, pif.Clients.ProxyVersion);
    }

    bool Begin(int client, int target, int listener, DescriptorUse use, int proxyVersion)
    {
        _ = _budget.TryTake(use, DescriptorsEach);
        // The budget has no more of these than there are slots.
        int index = _flows.Take();
        TcpFlow* flow = _flows[index];
        flow->Use = use;
        flow->ProxyVersion = (byte)proxyVersion;
        flow->Listener = listener;
        flow->ListenerGeneration = _listeners.Generation(listener);
        _listeners[listener]->Flows++;
        *TcpFlow.End(flow, TcpFlow.Client) = new() { Fd = client, Pipe = -1, Writable = true, NoDelay = true };
        *TcpFlow.End(flow, TcpFlow.Target) = new() { Fd = target, Pipe = -1 };
        _counters.TcpTotal++;
        _counters.TcpOpen++;
        _connecting.Start(index, _loop.Now);

        Result watched = _loop.Epoll.Add(target, Interest, Key(index, TcpFlow.Target));
        if (watched.Ok)
            watched = _loop.Epoll.Add(client, Interest, Key(index, TcpFlow.Client));
        if (!watched.Ok)
        {
            _limits.Reached("watched descriptors", watched.Error);
            _counters.Shed++;
            Reset(index);
        }

        return watched.Ok;
    }

    ulong Key(int index, int part) => new EventKey(_kind, index, _flows.Generation(index), part).Word;

    /// <summary>Whether no local port is left towards a target for any client. Where each client has an address of its own, only that one lacks a port.</summary>
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
        int index = key.Index, part = key.Part;
        if (!key.IsOf(_flows.Generation(index)))
            return;
        TcpFlow* flow = _flows[index];
        TcpEnd* end = TcpFlow.End(flow, part), other = TcpFlow.End(flow, 1 - part);
        if (!flow->Connected && part == TcpFlow.Target && !FinishConnecting(index, events))
            return;

        if ((events & Events.Priority) != 0)
            ReceiveUrgent(flow);
        if (TellsOfSomethingToReceive(end, events))
        {
            if (end->Readable && !end->ReadPaused && !other->Writable)
                PauseReading(index, part, end);
            BeginReading(index, part, end);
        }

        if ((events & (Events.ReadHangUp | AnyError)) != 0)
            end->ReadToEnd = true;
        if ((events & (Events.Out | AnyError)) != 0)
            end->Writable = true;
        if ((events & Events.Error) != 0 && EndOnError(index, part))
            return;
        if (end->Streaming || other->Streaming)
            _ready.Add(index);
        else
            Move(index, part, EventShare);
    }

    /// <summary>
    /// Whether something may have come since it was seen last that there is nothing. An event may be older than that, since one end's event
    /// moves the other end's bytes too; what has come since then has an event of its own. To look nevertheless would be in vain, or skip an
    /// urgent byte that has come alone in between: to receive it in its place takes an option, which is set when its event comes. That event
    /// may not call the socket readable.
    /// </summary>
    bool TellsOfSomethingToReceive(TcpEnd* end, Events events) =>
        (events & (Events.Priority | Events.ReadHangUp | AnyError)) != 0 || ((events & Events.In) != 0 && end->DryAt != _loop.Waits);

    void BeginReading(int index, int part, TcpEnd* end)
    {
        if (end->LowWater && !end->Readable)
            _lowWater.Stop((index * 2) + part);
        end->Readable = true;
    }

    void PauseReading(int index, int part, TcpEnd* end)
    {
        // The kernel announces whatever it has received as urgent, too, so that has to be off as well. Once it is on again, it tells what came.
        end->ReadPaused = _loop.Epoll.Modify(end->Fd, Interest & ~(Events.In | Events.Priority), Key(index, part)).Ok;
    }

    /// <summary>An end has nothing more to receive: an event will tell when it has.</summary>
    void EndReading(int index, int part, TcpEnd* end)
    {
        end->DryAt = _loop.Waits;
        if (end->LowWater)
            _lowWater.Start((index * 2) + part, _loop.Now);
        if (!end->ReadPaused)
            return;
        end->ReadPaused = false;
        // It changes nothing but a mask of a descriptor that is watched: it can't fail. If something has come, the kernel tells at once.
        _ = _loop.Epoll.Modify(end->Fd, Interest, Key(index, part)).Ok;
    }

    /// <summary>False if the target has not answered yet, or not taken all of the header before the stream; or if the flow is gone, because one of them failed.</summary>
    bool FinishConnecting(int index, Events events)
    {
        if ((events & (Events.Out | AnyError)) == 0)
            return false;
        TcpFlow* flow = _flows[index];
        if ((events & AnyError) != 0)
        {
            Errno error = Sockets.PendingError(TcpFlow.End(flow, TcpFlow.Target)->Fd);
            if (error != Errno.None)
            {
                _counters.Refused++;
                Log.Debug($"TCP connection to a target: {error.Text()}");
                Reset(index);
                return false;
            }
        }

        if (flow->ProxyVersion != 0 && !Introduce(index))
            return false;
        flow->Connected = true;
        _connecting.Stop(index);
        if (_idle.Duration != 0)
            _idle.Start(index, _loop.Now);
        return true;
    }

    /// <summary>Tells the target who the client is. False as long as something of that is left, or if the flow is gone.</summary>
    bool Introduce(int index)
    {
        TcpFlow* flow = _flows[index];
        Result sent = ProxyIntroduction.Send(flow);
        if (sent is { Ok: true, Value: 0 })
            return true;
        if (sent.Ok || sent.Is(Errno.EAGAIN))
        {
            // What has come from the target meanwhile has had its event.
            TcpEnd* target = TcpFlow.End(flow, TcpFlow.Target);
            target->Readable = target->ReadToEnd = true;
            return false;
        }

        Reset(index);
        return false;
    }

    /// <summary>Urgent data makes the kernel stop early when it receives and when it splices: from now on receive, and until nothing is left.</summary>
    static void ReceiveUrgent(TcpFlow* flow)
    {
        if (flow->Urgent)
            return;
        flow->Urgent = true;
        SetUrgentInline(flow);
    }

    static void SetUrgentInline(TcpFlow* flow)
    {
        _ = Sockets.SetUrgentInline(TcpFlow.End(flow, TcpFlow.Client)->Fd).Ok;
        _ = Sockets.SetUrgentInline(TcpFlow.End(flow, TcpFlow.Target)->Fd).Ok;
    }

    /// <summary>A socket was reset or failed: what it received before still goes on, then the other side is reset too.</summary>
    bool EndOnError(int index, int part)
    {
        TcpFlow* flow = _flows[index];
        if (Sockets.PendingError(TcpFlow.End(flow, part)->Fd) == Errno.None)
            return false;
        flow->Failed = true;
        if (flow->Connected)
        {
            _ = _relay.Move(flow, part, long.MaxValue, out long moved);
            Count(part, moved);
        }

        Reset(index);
        return true;
    }

    void Count(int part, long moved)
    {
        if (part == TcpFlow.Client)
            _counters.BytesIn += moved;
        else
            _counters.BytesOut += moved;
    }

    /// <summary>Moves what an event on one end may have set free: first what came from it, then what waits to go to it.</summary>
    /// <returns>How many bytes it was; 0 too if the flow is gone.</returns>
    long Move(int index, int part, long share)
    {
        TcpFlow* flow = _flows[index];
        if (!flow->Connected)
            return 0;
        TcpEnd* end = TcpFlow.End(flow, part), other = TcpFlow.End(flow, 1 - part);
        bool wasReadable = end->Readable, otherWasReadable = other->Readable;
        TcpRelay.Outcome from = _relay.Move(flow, part, share, out long moved), to = from;
        Count(part, moved);
        if (from != TcpRelay.Outcome.Broken)
        {
            to = _relay.Move(flow, 1 - part, share, out long movedBack);
            Count(1 - part, movedBack);
            moved += movedBack;
        }

        if (to == TcpRelay.Outcome.Broken)
        {
            Reset(index);
            return 0;
        }

        if (end->EndSent && other->EndSent)
        {
            Close(index);
            return 0;
        }

        if (wasReadable && !end->Readable)
            EndReading(index, part, end);
        if (otherWasReadable && !other->Readable)
            EndReading(index, 1 - part, other);
        if (from == TcpRelay.Outcome.HasMore || to == TcpRelay.Outcome.HasMore)
            _ready.Add(index);
        RestartTimeouts(index, flow, moved);
        return moved;
    }

    void RestartTimeouts(int index, TcpFlow* flow, long moved)
    {
        if (moved != 0 && _idle.Duration != 0)
            _idle.Restart(index, _loop.Now);
        if (_halfClosed.Duration == 0 || TcpFlow.End(flow, TcpFlow.Client)->EndSent == TcpFlow.End(flow, TcpFlow.Target)->EndSent)
            return;
        if (!flow->HalfClosed)
            _halfClosed.Start(index, _loop.Now);
        else if (moved != 0)
            _halfClosed.Restart(index, _loop.Now);
        flow->HalfClosed = true;
    }

    /// <summary>Ends a flow because one side failed: the other is reset.</summary>
    void Reset(int index)
    {
        TcpFlow* flow = _flows[index];
        _ = Sockets.SetResetOnClose(TcpFlow.End(flow, TcpFlow.Client)->Fd).Ok;
        _ = Sockets.SetResetOnClose(TcpFlow.End(flow, TcpFlow.Target)->Fd).Ok;
        Close(index);
    }

    void Close(int index)
    {
        TcpFlow* flow = _flows[index];
        for (int part = TcpFlow.Client; part <= TcpFlow.Target; part++)
        {
            TcpEnd* end = TcpFlow.End(flow, part);
            Descriptors.Close(end->Fd);
            _relay.Release(end);
            if (end->LowWater && !end->Readable)
                _lowWater.Stop((index * 2) + part);
        }

        if (!flow->Connected)
            _connecting.Stop(index);
        else if (_idle.Duration != 0)
            _idle.Stop(index);
        if (flow->HalfClosed)
            _halfClosed.Stop(index);
        _ready.Remove(index);
        _listeners.FlowEnded(flow->Listener, flow->ListenerGeneration);
        _budget.Give(flow->Use, DescriptorsEach);
        _flows.Return(index);
        _counters.TcpOpen--;
    }

    public long Deadline => _ready.Count > 0 ? 0 : Math.Min(
        Math.Min(_connecting.Deadline, _idle.Deadline), Math.Min(_halfClosed.Deadline, _lowWater.Deadline));

    public void OnTime(long now)
    {
        for (int i = 0; i < MostTimedOut && _lowWater.Deadline <= now; i++)
            EndLowWater(_lowWater.First);
        _turnShare = Math.Max(LeastTurnShare, TurnShare / Math.Max(1, _ready.Count));
        _ready.GiveTurns(this);
        for (int i = 0; i < MostTimedOut && _connecting.Deadline <= now; i++)
            EndConnecting(_connecting.First);
        for (int i = 0; i < MostTimedOut && _idle.Deadline <= now; i++)
            EndUnlessMoving(_idle.First);
        for (int i = 0; i < MostTimedOut && _halfClosed.Deadline <= now; i++)
            EndUnlessMoving(_halfClosed.First);
    }

    public void OnReady(int index) => Move(index, TcpFlow.Client, _turnShare);

    /// <summary>What came to an end in time is less than the low-water mark: moves it, and everything after it at once.</summary>
    void EndLowWater(int place)
    {
        int index = place / 2, part = place % 2;
        TcpFlow* flow = _flows[index];
        TcpEnd* end = TcpFlow.End(flow, part);
        BeginReading(index, part, end);
        TcpRelay.EndLowWater(end);
        SetUrgentInline(flow);
        _ready.Add(index);
    }

    /// <summary>The target's time to answer is over, unless its answer is there and has only not been seen.</summary>
    void EndConnecting(int index)
    {
        uint generation = _flows.Generation(index);
        if (Descriptors.IsWritable(TcpFlow.End(_flows[index], TcpFlow.Target)->Fd) && FinishConnecting(index, Events.Out | Events.Error))
        {
            TcpFlow.End(_flows[index], TcpFlow.Target)->Writable = true;
            _ready.Add(index);
            return;
        }

        // It may have been refused, and be gone.
        if (_flows.Generation(index) != generation)
            return;
        _counters.Refused++;
        Reset(index);
    }

    /// <summary>
    /// Nothing has moved for the time allowed. It is looked whether something can be moved now: where the loop was held up, or has more to do
    /// than there is time for, that may have gone unseen.
    /// </summary>
    void EndUnlessMoving(int index)
    {
        TcpFlow* flow = _flows[index];
        SetUrgentInline(flow);
        for (int part = TcpFlow.Client; part <= TcpFlow.Target; part++)
        {
            TcpEnd* end = TcpFlow.End(flow, part);
            BeginReading(index, part, end);
            end->Writable = true;
        }

        uint generation = _flows.Generation(index);
        if (Move(index, TcpFlow.Client, EventShare) == 0 && _flows.Generation(index) == generation)
            Reset(index);
    }
}
