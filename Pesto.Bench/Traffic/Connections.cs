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

    readonly Measure measure;
    readonly Outcome outcome;
    readonly SocketAddress to;
    readonly int count;
    readonly Slot* slots;
    readonly byte* buffer = (byte*)NativeMemory.AllocZeroed(Size);
    readonly Epoll epoll = new(Socket.MostEvents);
    int closed;
    bool inputEnded;

    public Connections(Measure measure, SocketAddress to, int count)
    {
        this.measure = measure;
        this.outcome = measure.Outcome;
        this.to = to;
        this.count = count;
        this.slots = (Slot*)NativeMemory.AllocZeroed((nuint)count, (nuint)sizeof(Slot));
    }

    /// <summary>Goes on until the measurement is over, or the standard input ends if that is wanted too.</summary>
    public int Run(bool untilInputEnds)
    {
        if (untilInputEnds)
            this.epoll.Watch(0, Events.In, Input).OrThrow("watching a socket");
        for (int i = 0; i < this.count; i++)
            this.Open(i);
        long now = Stopwatch.GetTimestamp();
        long check = now + CheckEvery;
        while (!this.inputEnded && this.measure.GoesOn(now))
        {
            int ready = Math.Max(0, this.epoll.Wait(this.closed > 0 ? 0 : 50).Value);
            for (int i = 0; i < ready; i++)
                this.Serve((int)this.epoll.DataAt(i));
            if (this.closed > 0)
                this.OpenClosed();
            now = Stopwatch.GetTimestamp();
            if (now < check)
                continue;
            check = now + CheckEvery;
            this.CloseStalled(now);
        }

        return this.measure.End();
    }

    void Open(int slot)
    {
        Slot* s = this.slots + slot;
        if (this.measure.Running)
            this.outcome.Attempts++;
        s->Started = Stopwatch.GetTimestamp();
        s->Received = 0;
        s->Fd = Result.Of(Libc.socket(this.to.Family, Kernel.SOCK_STREAM | Kernel.SOCK_NONBLOCK | Kernel.SOCK_CLOEXEC, 0)).OrThrow("socket");
        SocketAddress address = this.to;
        Result connected = Result.Of(Libc.connect(s->Fd, &address, address.Length));
        if (!connected.Ok && !connected.Is(Errno.EINPROGRESS))
        {
            this.Failed(s, connected.Error);
            return;
        }

        // Over loopback the handshake is over by now, for better or worse.
        Result sent = Result.Of(Libc.send(s->Fd, this.buffer, Size, Kernel.MSG_NOSIGNAL));
        s->Sent = sent.Ok;
        if (sent.Ok || sent.Is(Errno.EAGAIN))
            this.epoll.Watch(s->Fd, s->Sent ? Events.In : Events.Out, (uint)slot).OrThrow("watching a socket");
        else
            this.Failed(s, sent.Error);
    }

    void Serve(int slot)
    {
        if (slot == Input)
        {
            this.inputEnded = Libc.read(0, this.buffer, Size) <= 0;
            return;
        }

        Slot* s = this.slots + slot;
        if (!s->Sent)
            this.SendLate(s, slot);
        else
            this.Receive(s, slot);
    }

    void SendLate(Slot* s, int slot)
    {
        Result sent = Result.Of(Libc.send(s->Fd, this.buffer, Size, Kernel.MSG_NOSIGNAL));
        s->Sent = sent.Ok;
        if (sent.Ok)
            this.epoll.Change(s->Fd, Events.In, (uint)slot).OrThrow("watching a socket");
        else if (!sent.Is(Errno.EAGAIN))
            this.Failed(s, sent.Error);
    }

    void Receive(Slot* s, int slot)
    {
        Result received = Result.Of(Libc.recv(s->Fd, this.buffer, (nuint)(Size - s->Received), 0));
        if (received.Is(Errno.EAGAIN))
            return;
        if (!received.Ok || received.Value == 0)
        {
            this.Failed(s, received.Error);
            return;
        }

        s->Received += received.Value;
        if (s->Received < Size)
            return;
        this.measure.Exchanged(s->Started, Stopwatch.GetTimestamp(), Size);
        _ = Libc.close(s->Fd);
        this.Open(slot);
    }

    void Failed(Slot* s, Errno error)
    {
        _ = Libc.close(s->Fd);
        s->Fd = Closed;
        this.closed++;
        if (!this.measure.Running)
            return;
        // An end before the answer is as bad as a reset.
        if (error == Errno.ECONNREFUSED)
            this.outcome.Refused++;
        else
            this.outcome.Reset++;
    }

    void CloseStalled(long now)
    {
        for (int i = 0; i < this.count; i++)
        {
            Slot* s = this.slots + i;
            if (s->Fd == Closed || now - s->Started <= Stalled)
                continue;
            _ = Libc.close(s->Fd);
            this.outcome.Stalled++;
            this.Open(i);
        }
    }

    void OpenClosed()
    {
        this.closed = 0;
        for (int i = 0; i < this.count; i++)
        {
            if (this.slots[i].Fd == Closed)
                this.Open(i);
        }
    }
}
