using Pesto.Forwarder.Loop;
using Pesto.Linux;

namespace Pesto.Forwarder.Control;

/// <summary>What a <see cref="ControlConnection"/> tells of its client.</summary>
interface IControlConnectionUser
{
    /// <summary>Takes what is complete of the bytes that the client sent, and says how many bytes that was; the rest comes again, with more behind it.</summary>
    int Take(ReadOnlySpan<byte> bytes);

    /// <summary>The client hung up, or can't be watched any more.</summary>
    void OnHungUp();

    /// <summary>After <see cref="ControlConnection.SendAndClose"/>: the client has taken all.</summary>
    void OnAllSent();

    /// <summary>The deadline has come, which is to be set anew.</summary>
    void OnDeadline();
}

/// <summary>
/// The bytes of one client after the other, received and sent without ever waiting. It is the only place that touches
/// the client's socket. Open: bytes are received and handed on. Paused: nothing is received, what the client does is seen
/// later. Closing: nothing is received any more, what is left to send is sent. Closed: there is no client.
/// </summary>
sealed unsafe class ControlConnection : IEventHandler, ITimed
{
    const int InputSize = 32 * 1024;

    /// <summary>The most that is received from a client, in input buffers, before traffic gets its turn.</summary>
    const int FairShare = 4;

    readonly EventLoop _loop;
    readonly IControlConnectionUser _user;
    readonly int _kind;
    readonly NativeArray<byte> _input = new(InputSize);
    readonly NativeArray<byte> _output;

    State _state;
    int _fd = -1;
    uint _generation;
    int _inputLength;
    int _outputAt;
    int _outputLength;
    bool _watched;

    /// <param name="mostOutput">Bytes that may be written before the client has taken any.</param>
    public ControlConnection(EventLoop loop, IControlConnectionUser user, int mostOutput)
    {
        _loop = loop;
        _user = user;
        _output = new(mostOutput);
        _kind = loop.AddHandler(this);
    }

    enum State
    {
        Closed,
        Open,
        Paused,
        Closing,
    }

    /// <summary>In milliseconds of <see cref="EventLoop.Now"/>.</summary>
    public long Deadline { get; set; } = long.MaxValue;

    /// <summary>Where to write what is to be sent: see <see cref="Wrote"/>.</summary>
    public Span<byte> Room => _output.Span[_outputLength..];

    public void Open(int client)
    {
        _fd = client;
        _generation++;
        _state = State.Open;
        _inputLength = _outputAt = _outputLength = 0;
    }

    public void Wrote(int bytes) => _outputLength += bytes;

    /// <summary>Sends what was written, and listens to the client, again if this was paused.</summary>
    public void Send()
    {
        _state = State.Open;
        Flush();
    }

    /// <summary>Sends what was written, listens no more, and says when all is sent.</summary>
    public void SendAndClose()
    {
        _state = State.Closing;
        Flush();
    }

    /// <summary>Stops listening to the client, without a deadline: its hanging up would be told again and again.</summary>
    public void Pause()
    {
        _state = State.Paused;
        Deadline = long.MaxValue;
        if (_watched)
            _ = _loop.Epoll.Remove(_fd).Ok;
        _watched = false;
    }

    /// <summary>Hands on what was received while this was paused.</summary>
    public void Resume() => HandOn();

    /// <summary>Receives and hands on what has come.</summary>
    public void Receive()
    {
        for (int i = 0; i < FairShare && _state == State.Open; i++)
        {
            Result received = Sockets.Receive(_fd, _input.Pointer + _inputLength, InputSize - _inputLength);
            if (received.Ok && received.Value > 0)
            {
                _inputLength += received.Value;
                HandOn();
            }
            else if (received.Is(Errno.EAGAIN))
            {
                return;
            }
            else if (!received.Is(Errno.EINTR))
            {
                _user.OnHungUp();
            }
        }
    }

    public void Close()
    {
        // Closing a UNIX socket with bytes unread would reset the client. One that never stops sending is stopped first.
        _ = Sockets.Shutdown(_fd, Sockets.ShutRead).Ok;
        while (Sockets.Receive(_fd, _input.Pointer, InputSize) is { Ok: true, Value: > 0 })
        {
        }

        Descriptors.Close(_fd);
        _fd = -1;
        _generation++;
        _watched = false;
        _state = State.Closed;
        Deadline = long.MaxValue;
    }

    public void OnEvents(EventKey key, Events events)
    {
        if (!key.IsOf(_generation) || _state is State.Closed or State.Paused)
            return;
        Flush();
        if (!key.IsOf(_generation))
            return;
        if (_state == State.Closing && (events & Events.HangUp) != 0)
            _user.OnHungUp();
        else
            Receive();
    }

    public void OnTime(long now) => _user.OnDeadline();

    void HandOn()
    {
        while (_state == State.Open)
        {
            ReadOnlySpan<byte> bytes = _input.Span[.._inputLength];
            uint generationBefore = _generation;
            int taken = _user.Take(bytes);
            // The client may be gone by now, and the buffer be the next one's.
            if (_generation != generationBefore || taken == 0)
                return;
            bytes[taken..].CopyTo(_input.Span);
            _inputLength -= taken;
        }
    }

    /// <summary>
    /// Sends what is still to be sent, and asks for the events that the state needs. That the client does not listen any
    /// more is no reason not to do what it said before: receiving will come to its end.
    /// </summary>
    void Flush()
    {
        while (_outputAt < _outputLength)
        {
            Result sent = Sockets.Send(_fd, _output.Pointer + _outputAt, _outputLength - _outputAt);
            if (sent.Ok)
            {
                _outputAt += sent.Value;
            }
            else if (sent.Is(Errno.EAGAIN))
            {
                break;
            }
            else if (!sent.Is(Errno.EINTR))
            {
                _outputAt = _outputLength;
            }
        }

        if (_outputAt < _outputLength)
        {
            Watch(Events.Out | (_state == State.Closing ? Events.None : Events.In | Events.ReadHangUp));
            return;
        }

        _outputAt = _outputLength = 0;
        if (_state == State.Closing)
            _user.OnAllSent();
        else
            Watch(Events.In | Events.ReadHangUp);
    }

    void Watch(Events interest)
    {
        ulong data = new EventKey(_kind, 0, _generation).Word;
        Result result = _watched ? _loop.Epoll.Modify(_fd, interest, data) : _loop.Epoll.Add(_fd, interest, data);
        _watched = result.Ok;
        if (!result.Ok)
            _user.OnHungUp();
    }
}
