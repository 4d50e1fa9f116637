using System.Numerics;
using Pesto.Forwarder.Listening;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Commit;

/// <summary>
/// Waits until no handshake is under way with a quiesced socket: a client is connected once it has sent its ACK, and if the socket is closed
/// before that arrives, it is reset. The kernel's list of half-open connections is read in parts, and again after a
/// pause that doubles each time, so that a flood of SYNs makes a commit late and nothing else.
/// </summary>
public sealed unsafe class HandshakeDrain(Tables tables, Listeners listeners)
{
    /// <summary>How long handshakes may take, in milliseconds: enough for a lost packet to be sent again.</summary>
    const long Limit = 2000;

    /// <summary>In milliseconds: also what a packet gets that another processor was handling when the socket was quiesced.</summary>
    const long FirstPause = 1;

    /// <summary>Connections that are looked at before the caller's clock is.</summary>
    const int Stride = 64;

    // A bit for each pif with quiesced sockets, and for those of this pass that are still to be read.
    int _pifs;
    int _left;
    bool _reading;
    bool _found;
    long _pause;
    long _until;

    /// <summary>When to go on, in the loop's milliseconds.</summary>
    public long Deadline { get; private set; }

    public void Clear() => _pifs = 0;

    /// <summary>A TCP socket of this pif was quiesced.</summary>
    public void Add(int pif) => _pifs |= 1 << pif;

    public bool IsNeeded => _pifs != 0;

    public void Begin(long now)
    {
        _until = now + Limit;
        _pause = FirstPause;
        BeginPass(now);
    }

    void BeginPass(long now)
    {
        _left = _pifs;
        _reading = _found = false;
        Deadline = now + _pause;
        _pause *= 2;
    }

    /// <summary>Goes on for a bounded time, with one system call or two; true once no such handshake is left, or the limit has passed.</summary>
    public bool Step(long now)
    {
        if (now >= _until)
            return true;
        Deadline = 0;
        for (int looked = 0; looked < Stride; looked++)
        {
            if (_left == 0)
            {
                if (!_found)
                    return true;
                BeginPass(now);
                return false;
            }

            int pif = BitOperations.TrailingZeroCount(_left);
            HalfOpenConnections connections = tables.Pifs[pif].Listens.HalfOpen;
            if (!_reading)
            {
                connections.Begin();
                _reading = true;
            }

            Result next = connections.Next(out ushort port);
            if (next.Is(Errno.EAGAIN))
                return false;
            if (next is { Ok: true, Value: > 0 })
            {
                _found |= port != 0 && HasQuiesced(pif, port);
                continue;
            }

            // Without memory for the list, there may be more; without such a list at all, no handshake is ever seen.
            _found |= next.Error is Errno.ENOBUFS or Errno.ENOMEM;
            _left &= _left - 1;
            _reading = false;
        }

        return false;
    }

    bool HasQuiesced(int pif, ushort port)
    {
        for (int i = listeners.FirstOnPort(pif, IpProtocol.Tcp, port); i >= 0; i = listeners.NextOnPort(i))
        {
            if (listeners[i]->Quiesced)
                return true;
        }

        return false;
    }
}
