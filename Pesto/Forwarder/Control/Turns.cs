using Pesto.Forwarder.Reporting;
using Pesto.Linux;

namespace Pesto.Forwarder.Control;

/// <summary>
/// Which client has its turn at the tables, and how long. One at a time, since what it reads is what it replaces; the
/// others wait in order, connected, and are greeted when their turn comes. In a crowd those that stall share one
/// time-out, so that one that does not stall has its turn within it.
/// </summary>
sealed class Turns
{
    /// <summary>Clients that may wait with a descriptor of ours each; further ones wait in the kernel. So many are a crowd.</summary>
    const int UsualMostWaiting = 64;

    /// <summary>
    /// In a crowd a client gets this part of the time-out for each step: the larger one, as a busy machine may take a while
    /// to give the client its time, and half as much for each that stalled right before it, down to the smaller one, and so
    /// many milliseconds at least.
    /// </summary>
    const int FirstCrowdShare = 50, CrowdShare = 2000;
    const long LeastPatience = 2;

    readonly Session _session;
    readonly bool _idsMeanSomething;
    readonly Action _whenRoom;
    readonly Action<bool> _whenOver;
    readonly Queue<int> _waiting = new(UsualMostWaiting);
    readonly int _mostWaiting;
    readonly uint _owner = Processes.User;
    bool _choosing;

    // So many came that some may wait in the kernel; until none waits.
    bool _crowded;
    int _stalledInARow;

    /// <param name="idsMeanSomething">False in a user namespace in which other users are not mapped: then the socket's mode alone keeps them out.</param>
    /// <param name="descriptors">How many clients may have a descriptor at a time, 3 or more.</param>
    /// <param name="whenRoom">Called when <see cref="HasRoom"/> may have become true.</param>
    public Turns(Session session, bool idsMeanSomething, int descriptors, Action whenRoom)
    {
        // One has its turn, and one more is accepted to be turned away.
        _mostWaiting = Math.Min(UsualMostWaiting, descriptors - 2);
        _session = session;
        _idsMeanSomething = idsMeanSomething;
        _whenRoom = whenRoom;
        _whenOver = OnOver;
    }

    public bool HasRoom => _waiting.Count < _mostWaiting;

    /// <summary>Takes a connection into the queue; there must be room.</summary>
    public void Add(int client)
    {
        _waiting.Enqueue(client);
        if (!HasRoom)
        {
            _crowded = true;
            _session.Hurry(Share());
        }
    }

    /// <summary>Gives the next client its turn, unless one has it.</summary>
    public void Next()
    {
        // A client that is gone when its turn comes ends its session at once, which asks for the next while this one is being begun.
        if (_choosing)
            return;
        _choosing = true;
        while (_session.IsIdle && _waiting.TryDequeue(out int client))
        {
            Result known = Sockets.Peer(client, out Sockets.PeerIds peer);
            if (known.Ok && (!_idsMeanSomething || peer.User == _owner || peer.User == 0))
            {
                _session.Begin(client, peer, _crowded ? Share() : _session.Timeout, _whenOver);
                continue;
            }

            Log.Warn($"control: user {peer.User} (process {peer.Pid}) may not talk to this forwarder");
            Descriptors.Close(client);
        }

        _choosing = false;
        _crowded &= _waiting.Count > 0;
        if (HasRoom)
            _whenRoom();
    }

    /// <summary>Milliseconds for a step in a crowd.</summary>
    long Share() => Math.Max(LeastPatience, Math.Max(_session.Timeout / CrowdShare, (_session.Timeout / FirstCrowdShare) >> Math.Min(_stalledInARow, 32)));

    void OnOver(bool stalled)
    {
        _stalledInARow = stalled ? _stalledInARow + 1 : 0;
        Next();
    }
}
