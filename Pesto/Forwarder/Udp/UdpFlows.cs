using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder;

/// <summary>
/// Carries datagrams between clients and targets. They are received many at a time; what follows each other in one flow
/// goes on in one call, as one row if the sizes allow. Answers of all flows are gathered over an iteration of the loop.
/// What can't be sent is dropped and counted, as a router would.
/// </summary>
public sealed unsafe class UdpFlows : IEventHandler, ITimed
{
    const int Batch = 64;

    /// <summary>What one flow's target may send before others get their turn, in datagrams or rows.</summary>
    const int FairShare = 4 * Batch;

    /// <summary>More than a receive buffer holds: nothing is drained for ever.</summary>
    const int MostDrained = 1 << 16;

    /// <summary>What a flow's socket is to hold while the loop is busy elsewhere, in bytes.</summary>
    const int FlowBuffer = 1024 * 1024;

    /// <summary>How many flows may end before others get their turn: each takes a few microseconds.</summary>
    const int MostEnded = 256;

    /// <summary>How many idle flows make room at a time for something else that needs descriptors, and how long they have been idle.</summary>
    const int MakeRoomFor = 16;
    const long IdleEnough = 10_000;

    const Events Interest = Events.In | Events.Edge;

    readonly Loop loop;
    readonly Counters counters;
    readonly Limits limits;
    readonly Tables tables;
    readonly Listeners listeners;
    readonly Targets targets;
    readonly FlowTable flows;
    readonly Datagrams asked = new(Batch, withSources: true);
    readonly Datagrams answers = new(Batch, withSources: false);
    readonly int[] answering = new int[Batch];
    readonly Outgoing outgoing = new(Batch);
    readonly NativeArray<ulong> ready;
    readonly bool canSendRows;
    readonly int kind;
    int answerCount;
    int readyCount;

    public UdpFlows(Loop loop, Counters counters, Limits limits, Tables tables, Listeners listeners, Targets targets, FlowTable flows)
    {
        this.loop = loop;
        this.counters = counters;
        this.limits = limits;
        this.tables = tables;
        this.listeners = listeners;
        this.targets = targets;
        this.flows = flows;
        this.ready = new(flows.Capacity);
        this.kind = loop.AddHandler(this);
        loop.AddTimed(this);
        limits.MakeRoom += this.MakeRoom;
        Result probe = Sockets.Udp(SocketAddress.V4);
        if (probe.Ok)
        {
            this.canSendRows = Sockets.CanSendRows(probe.Value);
            Descriptors.Close(probe.Value);
        }
    }

    /// <summary>Forwards what waits on a listening socket by the rule, up to so many datagrams. True if there may be more.</summary>
    public bool Receive(int listener, Rule* rule, int most)
    {
        Listeners.Listener* from = this.listeners[listener];
        ushort port = rule->TargetPort(from->Port);
        SocketAddress v4 = this.targets.Of(rule->Target, isV4: true, port), v6 = this.targets.Of(rule->Target, isV4: false, port);
        most = Math.Min(most, MostDrained);
        for (int received = 0; received < most; received += Batch)
        {
            Result count = this.asked.Receive(from->Fd, 0, Batch);
            if (count.Is(Errno.EINTR))
                continue;
            if (!count.Ok)
                return !count.Is(Errno.EAGAIN);
            this.Ask(listener, count.Value, in v4, in v6);
            if (count.Value < Batch)
                return false;
        }

        return true;
    }

    /// <summary>Datagrams that came to a listening socket: what follows each other in one flow goes on together.</summary>
    void Ask(int listener, int count, in SocketAddress v4, in SocketAddress v6)
    {
        Listeners.Listener* from = this.listeners[listener];
        bool toldLocal = from->Address.IsWildcard;
        int current = -1, first = 0;
        for (int i = 0; i < count; i++)
        {
            ref SocketAddress client = ref this.asked.Source(i);
            Address local = toldLocal ? this.asked.Local(i) : from->Address;
            FlowKey key = new(client.Address, local, client.Scope, client.Port, from->Port, from->Pif);
            if (current >= 0)
            {
                if (this.flows[current]->Key.Equals(key))
                    continue;
                this.SendToTarget(current, first, i - first);
            }

            first = i;
            current = this.FlowOf(in key, listener, in (key.Client.IsV4 ? ref v4 : ref v6));
            if (current < 0)
                this.counters.DatagramsDropped += this.asked.Held(i);
        }

        if (current >= 0)
            this.SendToTarget(current, first, count - first);
    }

    /// <summary>The flow that a datagram belongs to, a new one if need be; -1 if none is to be had.</summary>
    int FlowOf(in FlowKey key, int listener, in SocketAddress target)
    {
        int index = this.flows.Find(in key);
        if (index < 0)
            return this.NewFlow(in key, listener, in target);
        if (!this.flows[index]->Target.Equals(in target))
        {
            // A commit has given the rule another target.
            this.End(index);
            return this.NewFlow(in key, listener, in target);
        }

        if (this.flows[index]->Listener != listener)
            this.flows.Move(index, listener);
        this.flows.Asked(index, this.loop.Now);
        return index;
    }

    int NewFlow(in FlowKey key, int listener, in SocketAddress target)
    {
        Side side = this.tables.Pifs[this.listeners[listener]->Pif].Connects;
        if (this.flows.Count == this.flows.Capacity)
            this.Shed(Errno.None);
        Result socket = Connected(side, in target);
        // EAGAIN: no local port is left.
        if (socket.Is(Errno.EAGAIN) || this.limits.IsExhaustion(socket.Error))
        {
            this.Shed(socket.Error);
            socket = Connected(side, in target);
        }

        if (!socket.Ok)
        {
            Log.Debug($"UDP target {target.Address}:{target.Port}: {socket.Error.Text()}");
            return -1;
        }

        int fd = socket.Value;
        int index = this.flows.Add(in key, in target, fd, listener, this.loop.Now);
        this.counters.UdpOpen++;
        this.counters.UdpTotal++;
        Result watched = this.loop.Epoll.Watch(fd, Interest, new EventKey(this.kind, index, this.flows.Generation(index)).Word);
        if (watched.Ok)
            return index;
        this.limits.MadeRoom("watched descriptors", watched.Error);
        this.End(index);
        return -1;
    }

    static Result Connected(Side side, in SocketAddress target)
    {
        Result socket = side.Udp(target.Family);
        if (!socket.Ok)
            return socket;
        Sockets.SetBuffers(socket.Value, FlowBuffer);
        _ = Sockets.SetRowsReceived(socket.Value).Ok;
        Result connected = Sockets.Connect(socket.Value, in target);
        if (connected.Ok)
            return socket;
        Descriptors.Close(socket.Value);
        return connected;
    }

    void SendToTarget(int index, int first, int count)
    {
        FlowTable.Flow* flow = this.flows[index];
        if (count == 1 && this.asked.Segment(first) == 0)
        {
            // The usual case, and the cheapest call there is for it.
            int length = this.asked.Length(first);
            Result sent = Sockets.Send(flow->Fd, this.asked.Bytes(first), length);
            if (sent.Ok)
            {
                this.counters.DatagramsIn++;
                this.counters.BytesIn += length;
            }
            else
            {
                this.counters.DatagramsDropped++;
                this.Failed(index, sent.Error);
            }

            return;
        }

        this.outgoing.Clear();
        this.Pack(this.asked, index, first, count, !flow->SingleIn, null, Address.Any);
        bool all = this.outgoing.Send(flow->Fd);
        Errno error = Errno.None;
        for (int i = 0; i < this.outgoing.Count; i++)
        {
            ref readonly Outgoing.Parcel parcel = ref this.outgoing[i];
            this.Count(in parcel, ref this.counters.DatagramsIn, ref this.counters.BytesIn);
            if (all)
                continue;
            flow->SingleIn |= parcel.RowRefused;
            error = parcel.Error == Errno.None ? error : parcel.Error;
        }

        if (error != Errno.None)
            this.Failed(index, error);
    }

    /// <summary>Puts datagrams of one flow into messages: as rows where their sizes allow.</summary>
    void Pack(Datagrams batch, int flow, int first, int count, bool inRows, SocketAddress* to, Address from)
    {
        int end = first + count;
        while (first < end)
        {
            int length = batch.Length(first), total = length, row = 1, segment = batch.Segment(first);
            if (segment == 0 && inRows && this.canSendRows && length > 0)
            {
                // All of one size, only the last may be shorter. A row can't hold an empty datagram.
                for (int last = length; last == length && row < Outgoing.MostInRow && first + row < end; row++)
                {
                    last = batch.Length(first + row);
                    total += last;
                    if (last > length || last == 0 || total > Outgoing.MostBytesInRow || batch.Segment(first + row) != 0)
                        break;
                }

                segment = row > 1 ? length : 0;
            }

            this.outgoing.Add(flow, batch, first, row, segment, to, from);
            first += row;
        }
    }

    void Count(in Outgoing.Parcel parcel, ref long datagrams, ref long bytes)
    {
        datagrams += parcel.Datagrams - parcel.Lost;
        bytes += parcel.Lost == 0 ? parcel.Bytes : parcel.Bytes / parcel.Datagrams * (parcel.Datagrams - parcel.Lost);
        this.counters.DatagramsDropped += parcel.Lost;
    }

    /// <summary>
    /// Something did not get to the target. If it is because nobody listens there, that ends the flow. The client is not told:
    /// the kernel sends "port unreachable" only for a port without a socket, and to send it oneself takes a raw socket, which
    /// an ordinary user does not get. When a rule is gone its port has no socket, so then clients are told.
    /// </summary>
    void Failed(int index, Errno error)
    {
        if (error != Errno.ECONNREFUSED)
            return;
        this.counters.UdpRefused++;
        this.End(index);
    }

    public void OnEvents(EventKey key, Events events)
    {
        if (key.IsOf(this.flows.Generation(key.Index)))
            this.Answer(key.Index);
    }

    /// <summary>Receives what a target has sent. It leaves at the end of the iteration, or when there is no more room.</summary>
    void Answer(int index)
    {
        int fd = this.flows[index]->Fd;
        Errno error = Errno.None;
        for (int received = 0; received < FairShare;)
        {
            if (this.answerCount == Batch)
                this.Flush();
            int room = Batch - this.answerCount;
            Result count = this.answers.Receive(fd, this.answerCount, room);
            if (!count.Ok)
            {
                if (count.Is(Errno.EAGAIN))
                    received = FairShare;
                else if (!count.Is(Errno.EINTR))
                    error = count.Error;
                // What came before an error is still there.
                received++;
                continue;
            }

            this.flows.Replied(index, this.loop.Now);
            for (int i = 0; i < count.Value; i++)
                this.answering[this.answerCount++] = index;
            if (count.Value < room)
                break;
            received += count.Value;
            if (received >= FairShare && !this.flows[index]->IsReady)
                this.MakeReady(index);
        }

        if (error != Errno.None)
            this.Failed(index, error);
    }

    void MakeReady(int index)
    {
        this.flows[index]->IsReady = true;
        this.ready[this.readyCount++] = new EventKey(this.kind, index, this.flows.Generation(index)).Word;
    }

    /// <summary>Sends the gathered answers to their clients, by the sockets and from the addresses that the clients know.</summary>
    void Flush()
    {
        int count = this.answerCount;
        this.answerCount = 0;
        for (int i = 0; i < count;)
        {
            int listener = this.flows[this.answering[i]]->Listener;
            bool fromAny = this.listeners[listener]->Address.IsWildcard;
            this.outgoing.Clear();
            while (i < count && this.flows[this.answering[i]]->Listener == listener)
            {
                int index = this.answering[i], first = i;
                while (i < count && this.answering[i] == index)
                    i++;
                FlowTable.Flow* flow = this.flows[index];
                this.Pack(this.answers, index, first, i - first, !flow->SingleOut, &flow->Client, fromAny ? flow->Key.Local : Address.Any);
            }

            bool all = this.outgoing.Send(this.listeners[listener]->Fd);
            for (int message = 0; message < this.outgoing.Count; message++)
            {
                ref readonly Outgoing.Parcel parcel = ref this.outgoing[message];
                this.Count(in parcel, ref this.counters.DatagramsOut, ref this.counters.BytesOut);
                if (!all && parcel.RowRefused)
                    this.flows[parcel.Owner]->SingleOut = true;
            }
        }
    }

    /// <summary>
    /// A listening socket is about to be closed. Flows whose address and port another one serves go on there; the others
    /// end, since their answers can't leave any more. False if there are more to end than is fair at a time.
    /// </summary>
    public bool Leave(int listener)
    {
        int ended = 0;
        int next;
        for (int index = this.flows.FirstOf(listener); index >= 0; index = next)
        {
            next = this.flows[index]->Next;
            int heir = this.Heir(listener, this.flows[index]->Key.Local);
            if (heir >= 0)
                this.flows.Move(index, heir);
            else if (ended++ < MostEnded)
                this.End(index);
        }

        return ended <= MostEnded;
    }

    /// <summary>Another listening socket in force that serves this address on the same port, or -1.</summary>
    int Heir(int listener, Address local)
    {
        Listeners.Listener* old = this.listeners[listener];
        for (int i = this.listeners.FirstOnPort(old->Pif, IpProtocol.Udp, old->Port); i >= 0; i = this.listeners.NextOnPort(i))
        {
            Listeners.Listener* other = this.listeners[i];
            if (i != listener && !other->Deaf && other->Rule[this.tables.Active] >= 0
                && (other->Address == local || other->DualStack || (other->Address.IsWildcard && other->Address.IsV4 == local.IsV4)))
            {
                return i;
            }
        }

        return -1;
    }

    /// <summary>The flow that has been idle longest makes room.</summary>
    void Shed(Errno why)
    {
        this.limits.MadeRoom("UDP flows", why);
        if (this.flows.Oldest < 0)
            return;
        this.counters.UdpShed++;
        this.End(this.flows.Oldest);
    }

    /// <summary>Ends some flows that have been idle for a while, because something else needs what they hold.</summary>
    void MakeRoom()
    {
        for (int i = 0; i < MakeRoomFor; i++)
        {
            int oldest = this.flows.Oldest;
            if (oldest < 0 || this.loop.Now - this.flows[oldest]->Moved < IdleEnough)
                return;
            this.counters.UdpShed++;
            this.End(oldest);
        }
    }

    void End(int index)
    {
        // Its answers that are gathered already are still to go.
        this.Flush();
        Descriptors.Close(this.flows[index]->Fd);
        this.flows.Remove(index);
        this.counters.UdpOpen--;
        this.limits.Released();
    }

    public long Deadline => this.answerCount > 0 || this.readyCount > 0 ? 0 : this.flows.Deadline;

    public void OnTime(long now)
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
            this.Answer(key.Index);
        }

        this.Flush();
        for (int i = 0; i < MostEnded && this.flows.Expired(now) is int expired and >= 0; i++)
            this.End(expired);
    }
}
