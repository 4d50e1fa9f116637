using Pesto.Forwarder.Loop;
using Pesto.Forwarder.Reporting;
using Pesto.Linux;

namespace Pesto.Forwarder.Control;

/// <summary>
/// The UNIX socket on which clients look at the tables and replace them. One client has its turn at a time, since what it
/// reads is what it replaces; the others wait in order, connected, and are greeted when their turn comes.
/// </summary>
public sealed class ControlSocket : IEventHandler, ITimed
{
    const int Backlog = 4096;

    /// <summary>
    /// Clients that may wait with a descriptor of ours each; further ones wait in the kernel. So many are a crowd, in which
    /// those that stall share one time-out: who does not stall then gets his turn within it.
    /// </summary>
    const int UsualMostWaiting = 64;

    const long RetryMilliseconds = 100;

    readonly EventLoop _loop;
    readonly Session _session;
    readonly string _path;
    readonly Files.FileIdentity _identity;
    readonly uint _owner;
    readonly bool _idsMeanSomething;
    readonly int _fd;
    readonly int _kind;
    readonly int _mostWaiting;
    readonly Queue<int> _waiting = new(UsualMostWaiting);
    bool _choosing;
    bool _armed;
    long _retryAt = long.MaxValue;

    // So many came that some may wait in the kernel; until nobody waits.
    bool _crowded;

    /// <summary>Opens the socket; throws <see cref="LinuxException"/> with the path in its words.</summary>
    /// <param name="idsMeanSomething">False in a user namespace in which other users are not mapped: then the socket's mode alone keeps them out.</param>
    /// <param name="descriptors">How many clients may have a descriptor at a time, 3 or more.</param>
    public ControlSocket(EventLoop loop, Session session, ListeningUnixSocket socket, bool idsMeanSomething, int descriptors)
    {
        // One has its turn, and one more is accepted to be turned away.
        _mostWaiting = Math.Min(UsualMostWaiting, descriptors - 2);
        _loop = loop;
        _session = session;
        _path = socket.Path;
        _fd = socket.Fd;
        _identity = socket.Identity;
        _owner = Processes.User;
        _idsMeanSomething = idsMeanSomething;
        Sockets.Listen(_fd, Backlog).OrThrow($"listening on {_path}");
        _kind = loop.AddHandler(this);
        Arm().OrThrow($"watching {_path}");
        session.Ended = Next;
    }

    /// <summary>Clients that are connected and not yet served.</summary>
    public int TimeoutList => _waiting.Count;

    public void OnEvents(EventKey key, Events events)
    {
        while (_waiting.Count < _mostWaiting)
        {
            Result accepted = Sockets.Accept(_fd);
            if (accepted.Ok)
            {
                _waiting.Enqueue(accepted.Value);
            }
            else if (accepted.Is(Errno.EAGAIN))
            {
                break;
            }
            else if (!accepted.Is(Errno.EINTR) && !accepted.Is(Errno.ECONNABORTED))
            {
                // Descriptors or memory: the event would come again and again.
                _retryAt = _loop.Now + RetryMilliseconds;
                Disarm();
                break;
            }
        }

        if (_waiting.Count == _mostWaiting)
        {
            Disarm();
            _crowded = true;
            _session.Hurry();
        }

        Next();
    }

    public long Deadline => _retryAt;

    public void OnTime(long now)
    {
        _retryAt = long.MaxValue;
        if (!Arm().Ok)
            _retryAt = now + RetryMilliseconds;
    }

    Result Arm()
    {
        if (_armed)
            return default;
        Result watched = _loop.Epoll.Add(_fd, Events.In, new EventKey(_kind, 0, 0).Word);
        _armed = watched.Ok;
        return watched;
    }

    void Disarm()
    {
        if (_armed)
            _ = _loop.Epoll.Remove(_fd).Ok;
        _armed = false;
    }

    void Next()
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
                _session.Begin(client, peer);
                if (_crowded)
                    _session.Hurry();
                continue;
            }

            Log.Warn($"control: user {peer.User} (process {peer.Pid}) may not talk to this forwarder");
            Descriptors.Close(client);
        }

        _choosing = false;
        _crowded &= _waiting.Count > 0;
        if (_waiting.Count < _mostWaiting && _retryAt == long.MaxValue && !Arm().Ok)
            _retryAt = _loop.Now + RetryMilliseconds;
    }

    /// <summary>Where the socket is in the file system, and which file it is.</summary>
    public (string Path, Files.FileIdentity Identity) File => (_path, _identity);
}
