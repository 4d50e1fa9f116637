using Pesto.Forwarder.Loop;
using Pesto.Linux;

namespace Pesto.Forwarder.Control;

/// <summary>The UNIX socket on which clients look at the tables and replace them: accepts them for <see cref="Turns"/>.</summary>
public sealed class ControlSocket : IEventHandler, ITimed
{
    const int Backlog = 4096;

    const long RetryMilliseconds = 100;

    readonly EventLoop _loop;
    readonly Turns _turns;
    readonly ListeningUnixSocket _socket;
    readonly int _kind;
    bool _armed;
    long _retryAt = long.MaxValue;

    /// <summary>Begins to listen; throws <see cref="LinuxException"/> with the path in its words.</summary>
    /// <param name="idsMeanSomething">False in a user namespace in which other users are not mapped: then the socket's mode alone keeps them out.</param>
    /// <param name="descriptors">How many clients may have a descriptor at a time, 3 or more.</param>
    public ControlSocket(EventLoop loop, Session session, ListeningUnixSocket socket, bool idsMeanSomething, int descriptors)
    {
        _loop = loop;
        _socket = socket;
        _turns = new(session, idsMeanSomething, descriptors, OnRoom);
        Sockets.Listen(_socket.Fd, Backlog).OrThrow($"listening on {_socket.Path}");
        _kind = loop.AddHandler(this);
        Arm().OrThrow($"watching {_socket.Path}");
    }

    /// <summary>Where the socket is in the file system, and which file it is.</summary>
    public (string Path, Files.FileIdentity Identity) File => (_socket.Path, _socket.Identity);

    public long Deadline => _retryAt;

    public void OnEvents(EventKey key, Events events)
    {
        while (_turns.HasRoom)
        {
            Result accepted = Sockets.Accept(_socket.Fd);
            if (accepted.Ok)
            {
                _turns.Add(accepted.Value);
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

        if (!_turns.HasRoom)
            Disarm();
        _turns.Next();
    }

    public void OnTime(long now)
    {
        _retryAt = long.MaxValue;
        OnRoom();
    }

    void OnRoom()
    {
        if (_retryAt == long.MaxValue && _turns.HasRoom && !Arm().Ok)
            _retryAt = _loop.Now + RetryMilliseconds;
    }

    Result Arm()
    {
        if (_armed)
            return default;
        Result watched = _loop.Epoll.Add(_socket.Fd, Events.In, new EventKey(_kind, 0, 0).Word);
        _armed = watched.Ok;
        return watched;
    }

    void Disarm()
    {
        if (_armed)
            _ = _loop.Epoll.Remove(_socket.Fd).Ok;
        _armed = false;
    }
}
