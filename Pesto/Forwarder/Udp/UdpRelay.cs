using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Reporting;
using Pesto.Linux;

namespace Pesto.Forwarder.Udp;

/// <summary>
/// Moves the datagrams of flows. Requests are received many at a time; those of one flow that follow each other are sent
/// by one call, as segments if their sizes allow. Replies of all flows are gathered over an iteration of the loop and sent
/// together. What can't be sent is dropped and counted, as a router would. Flows begin and end in <see cref="UdpFlows"/>.
/// </summary>
public sealed unsafe class UdpRelay
{
    /// <summary>The most entries that are received or sent by one call.</summary>
    public const int BatchSize = 64;

    /// <summary>What one flow's target may send before others get their turn, in entries of a batch.</summary>
    const int FairShare = 4 * BatchSize;

    /// <summary>The flow of what came to a flow's socket, but not from its target.</summary>
    const int Nobody = -1;

    readonly Counters _counters;
    readonly Listeners _listeners;
    readonly UdpFlowTable _flows;
    readonly ReceiveBatch _requests = new(BatchSize, withSources: true);
    readonly ReceiveBatch _replies = new(BatchSize, withSources: true);
    readonly int[] _repliedBy = new int[BatchSize];
    readonly SendBatch _sending = new(BatchSize);
    readonly bool _canSendSegments;
    int _replyCount;

    public UdpRelay(Counters counters, Listeners listeners, UdpFlowTable flows)
    {
        _counters = counters;
        _listeners = listeners;
        _flows = flows;
        Result probe = Sockets.Udp(SocketAddress.V4);
        if (probe.Ok)
        {
            _canSendSegments = Sockets.CanSendSegments(probe.Value);
            Descriptors.Close(probe.Value);
        }
    }

    /// <summary>What came of receiving from a flow's target.</summary>
    /// <param name="Any">Something was received.</param>
    /// <param name="More">There may be more than was fair to take.</param>
    /// <param name="Error">That of an earlier request, or of the socket; ECONNREFUSED: nothing listens on the target.</param>
    public readonly record struct Received(bool Any, bool More, Errno Error);

    /// <summary>Receives requests from a listening socket, at most <see cref="BatchSize"/>; fewer is all that there were, EAGAIN: none.</summary>
    public Result ReceiveRequests(int listener) => _requests.Receive(_listeners[listener]->Fd, 0, BatchSize);

    /// <summary>The flow to which a received request belongs.</summary>
    public UdpFlowKey KeyOf(int request, int listener)
    {
        Listeners.Listener* from = _listeners[listener];
        ref SocketAddress client = ref _requests.Source(request);
        Address local = from->Local.Address.IsWildcard ? _requests.Local(request) : from->Local.Address;
        return new(client.Address, local, client.Scope, client.Port, from->Local.Port, from->Pif);
    }

    /// <summary>The index of the interface that a received request came by; 0 if the listening socket does not tell.</summary>
    public uint InterfaceOf(int request) => _requests.Interface(request);

    /// <summary>A request for which no flow is to be had.</summary>
    public void DropRequest(int request) => _counters.DatagramsDropped += _requests.Datagrams(request);

    /// <summary>Sends received requests, so many from the first on, to the flow's target.</summary>
    /// <returns>Why some could not be sent, or an error that an earlier one met: ECONNREFUSED if nothing listens there.</returns>
    public Errno SendRequests(int index, int first, int count)
    {
        UdpFlow* flow = _flows[index];
        ref UdpTargetSocket socket = ref flow->Socket;
        SocketAddress* to = socket.IsConnected ? null : &flow->Socket.Target;
        if (flow->Header.Length != 0)
            return SendWithHeaders(index, first, count, to);
        if (count == 1 && _requests.SegmentSize(first) == 0)
        {
            // The usual case, and the cheapest call there is for it.
            int length = _requests.Length(first);
            Result sent = Sockets.SendTo(socket.Fd, _requests.Bytes(first), length, to);
            if (sent.Ok)
            {
                _counters.DatagramsIn++;
                _counters.BytesIn += length;
            }
            else
            {
                _counters.DatagramsDropped++;
            }

            return sent.Error;
        }

        _sending.Clear();
        Pack(_requests, index, first, count, flow->OnlySinglesIn, to, Address.Any);
        return SendToTarget(flow);
    }

    Errno SendWithHeaders(int index, int first, int count, SocketAddress* to)
    {
        UdpFlow* flow = _flows[index];
        byte* header = (byte*)Unsafe.AsPointer(ref MemoryMarshal.GetReference(flow->Header.Bytes));
        Errno error = Errno.None;
        _sending.Clear();
        for (int i = first; i < first + count; i++)
        {
            int at = 0;
            do
            {
                if (_sending.IsFull)
                {
                    error = SendToTarget(flow);
                    _sending.Clear();
                }

                at = _sending.AddWithHeader(index, _requests, i, at, _canSendSegments && !flow->OnlySinglesIn, header, flow->Header.Length, to);
            }
            while (at < _requests.Length(i));
        }

        Errno last = SendToTarget(flow);
        return error == Errno.None ? last : error;
    }

    Errno SendToTarget(UdpFlow* flow)
    {
        bool all = _sending.Send(flow->Socket.Fd);
        Errno error = Errno.None;
        for (int i = 0; i < _sending.Count; i++)
        {
            ref readonly SendBatch.Message message = ref _sending[i];
            Count(in message, ref _counters.DatagramsIn, ref _counters.BytesIn);
            if (all)
                continue;
            flow->OnlySinglesIn |= message.SegmentsRefused;
            error = message.Error == Errno.None ? error : message.Error;
        }

        return error;
    }

    /// <summary>Whether replies were received that have not been sent yet.</summary>
    public bool HasReplies => _replyCount > 0;

    /// <summary>Receives what a flow's target has sent. <see cref="SendReplies"/> sends it; that is done here only when there is no more room.</summary>
    public Received ReceiveReplies(int index)
    {
        UdpFlow* flow = _flows[index];
        Errno error = Errno.None;
        bool any = false;
        for (int received = 0; received < FairShare;)
        {
            if (_replyCount == BatchSize)
                SendReplies();
            int room = BatchSize - _replyCount;
            Result count = _replies.Receive(flow->Socket.Fd, _replyCount, room);
            if (count.Is(Errno.EAGAIN))
                return new(any, More: false, error);
            if (!count.Ok)
            {
                // What came before an error is still there.
                error = count.Is(Errno.EINTR) ? error : count.Error;
                received++;
                continue;
            }

            for (int i = 0; i < count.Value; i++)
            {
                bool isReply = flow->Socket.Accepts(in _replies.Source(_replyCount));
                any |= isReply;
                if (!isReply)
                    _counters.DatagramsDropped += _replies.Datagrams(_replyCount);
                _repliedBy[_replyCount++] = isReply ? index : Nobody;
            }

            if (count.Value < room)
                return new(any, More: false, error);
            received += count.Value;
        }

        return new(any, More: true, error);
    }

    /// <summary>Sends the replies gathered to their clients, by the sockets and from the addresses that the clients know.</summary>
    public void SendReplies()
    {
        int count = _replyCount;
        _replyCount = 0;
        for (int i = 0; i < count;)
        {
            if (_repliedBy[i] == Nobody)
            {
                i++;
                continue;
            }

            int listener = _flows[_repliedBy[i]]->Listener;
            bool fromAny = _listeners[listener]->Local.Address.IsWildcard;
            _sending.Clear();
            while (i < count && _repliedBy[i] != Nobody && _flows[_repliedBy[i]]->Listener == listener)
            {
                int index = _repliedBy[i], first = i;
                while (i < count && _repliedBy[i] == index)
                    i++;
                UdpFlow* flow = _flows[index];
                Pack(_replies, index, first, i - first, flow->OnlySinglesOut, &flow->Client, fromAny ? flow->Key.Local : Address.Any);
            }

            bool all = _sending.Send(_listeners[listener]->Fd);
            for (int j = 0; j < _sending.Count; j++)
            {
                ref readonly SendBatch.Message message = ref _sending[j];
                Count(in message, ref _counters.DatagramsOut, ref _counters.BytesOut);
                if (!all && message.SegmentsRefused)
                    _flows[message.Owner]->OnlySinglesOut = true;
            }
        }
    }

    /// <summary>Puts datagrams of one flow into messages: as segments where their sizes allow.</summary>
    void Pack(ReceiveBatch batch, int flow, int first, int count, bool onlySingles, SocketAddress* to, Address from)
    {
        int end = first + count;
        while (first < end)
        {
            int length = batch.Length(first), total = length, segments = 1, size = batch.SegmentSize(first);
            if (size == 0 && !onlySingles && _canSendSegments && length > 0)
            {
                // All of one size, only the last may be shorter. A segment can't be empty.
                for (int last = length; last == length && segments < SendBatch.MostSegments && first + segments < end; segments++)
                {
                    last = batch.Length(first + segments);
                    total += last;
                    if (last > length || last == 0 || total > SendBatch.MostSegmentBytes || batch.SegmentSize(first + segments) != 0)
                        break;
                }

                size = segments > 1 ? length : 0;
            }

            _sending.Add(flow, batch, first, segments, size, to, from);
            first += segments;
        }
    }

    void Count(in SendBatch.Message message, ref long datagrams, ref long bytes)
    {
        datagrams += message.Datagrams - message.Lost;
        bytes += message.Lost == 0 ? message.Bytes : message.Bytes / message.Datagrams * (message.Datagrams - message.Lost);
        _counters.DatagramsDropped += message.Lost;
    }
}
