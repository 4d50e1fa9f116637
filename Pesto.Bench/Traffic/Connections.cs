using System.Diagnostics;
using System.Runtime.InteropServices;
using Pesto.Linux;

namespace Pesto.Bench.Traffic;

/// <summary>
/// Connections that are opened, used for one exchange of 64 bytes and closed, over and over, a number of them at the same time.
/// Failures are counted by kind and do not end it.
/// </summary>
sealed unsafe class Connections
{
    struct Slot
    {
        public int Fd;
        public int Received;
        public bool Sent;
        public long Started;
    }

    const int Size = 64;
    const int Input = int.MaxValue;
    const int Closed = -1;
    const long Stalled = 5_000_000_000;
    const long CheckEvery = 100_000_000;

    readonly Measure _measure;
    readonly Outcome _outcome;
    readonly SocketAddress _to;
    readonly int _count;
    readonly Slot* _slots;
    readonly byte* _buffer = (byte*)NativeMemory.AllocZeroed(Size);
    readonly Epoll _epoll = new(Socket.MostEvents);
    int _closed;
    bool _inputEnded;

    public Connections(Measure measure, SocketAddress to, int count)
    {
        _measure = measure;
        _outcome = measure.Outcome;
        _to = to;
        _count = count;
        _slots = (Slot*)NativeMemory.AllocZeroed((nuint)count, (nuint)sizeof(Slot));
    }

    /// <summary>Goes on until the measurement is over, or the standard input ends if that is wanted too.</summary>
    public int Run(bool untilInputEnds)
    {
        if (untilInputEnds)
            _epoll.Add(0, Events.In, Input).OrThrow("watching a socket");
        for (int i = 0; i < _count; i++)
            Open(i);
        long now = Stopwatch.GetTimestamp();
        long check = now + CheckEvery;
        while (!_inputEnded && _measure.GoesOn(now))
        {
            int ready = Math.Max(0, _epoll.Wait(_closed > 0 ? 0 : 50).Value);
            for (int i = 0; i < ready; i++)
                Serve((int)_epoll.DataAt(i));
            if (_closed > 0)
                OpenClosed();
            now = Stopwatch.GetTimestamp();
            if (now < check)
                continue;
            check = now + CheckEvery;
            CloseStalled(now);
        }

        return _measure.End();
    }

    void Open(int slot)
    {
        Slot* s = _slots + slot;
        if (_measure.Running)
            _outcome.Attempts++;
        s->Started = Stopwatch.GetTimestamp();
        s->Received = 0;
        s->Fd = Result.Of(Libc.socket(_to.Family, Kernel.SOCK_STREAM | Kernel.SOCK_NONBLOCK | Kernel.SOCK_CLOEXEC, 0)).OrThrow("socket");
        SocketAddress address = _to;
        Result connected = Result.Of(Libc.connect(s->Fd, &address, address.Length));
        if (!connected.Ok && !connected.Is(Errno.EINPROGRESS))
        {
            Failed(s, connected.Error);
            return;
        }

        // Over loopback the handshake is over by now, for better or worse.
        Result sent = Result.Of(Libc.send(s->Fd, _buffer, Size, Kernel.MSG_NOSIGNAL));
        s->Sent = sent.Ok;
        if (sent.Ok || sent.Is(Errno.EAGAIN))
            _epoll.Add(s->Fd, s->Sent ? Events.In : Events.Out, (uint)slot).OrThrow("watching a socket");
        else
            Failed(s, sent.Error);
    }

    void Serve(int slot)
    {
        if (slot == Input)
        {
            _inputEnded = Libc.read(0, _buffer, Size) <= 0;
            return;
        }

        Slot* s = _slots + slot;
        if (!s->Sent)
            SendLate(s, slot);
        else
            Receive(s, slot);
    }

    void SendLate(Slot* s, int slot)
    {
        Result sent = Result.Of(Libc.send(s->Fd, _buffer, Size, Kernel.MSG_NOSIGNAL));
        s->Sent = sent.Ok;
        if (sent.Ok)
            _epoll.Modify(s->Fd, Events.In, (uint)slot).OrThrow("watching a socket");
        else if (!sent.Is(Errno.EAGAIN))
            Failed(s, sent.Error);
    }

    void Receive(Slot* s, int slot)
    {
        Result received = Result.Of(Libc.recv(s->Fd, _buffer, (nuint)(Size - s->Received), 0));
        if (received.Is(Errno.EAGAIN))
            return;
        if (!received.Ok || received.Value == 0)
        {
            Failed(s, received.Error);
            return;
        }

        s->Received += received.Value;
        if (s->Received < Size)
            return;
        _measure.Exchanged(s->Started, Stopwatch.GetTimestamp(), Size);
        _ = Libc.close(s->Fd);
        Open(slot);
    }

    void Failed(Slot* s, Errno error)
    {
        _ = Libc.close(s->Fd);
        s->Fd = Closed;
        _closed++;
        if (!_measure.Running)
            return;
        // An end before the answer is as bad as a reset.
        if (error == Errno.ECONNREFUSED)
            _outcome.Refused++;
        else
            _outcome.Reset++;
    }

    void CloseStalled(long now)
    {
        for (int i = 0; i < _count; i++)
        {
            Slot* s = _slots + i;
            if (s->Fd == Closed || now - s->Started <= Stalled)
                continue;
            _ = Libc.close(s->Fd);
            _outcome.Stalled++;
            Open(i);
        }
    }

    void OpenClosed()
    {
        _closed = 0;
        for (int i = 0; i < _count; i++)
        {
            if (_slots[i].Fd == Closed)
                Open(i);
        }
    }
}
