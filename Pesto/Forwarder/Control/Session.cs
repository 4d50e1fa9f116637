using System.Buffers.Binary;
using Pesto.Forwarder.Commit;
using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Loop;
using Pesto.Forwarder.Reporting;
using Pesto.Linux;
using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Forwarder.Control;

/// <summary>
/// The exchange with the client whose turn it is, as a state machine that never waits: greet it with the tables, receive
/// new ones into the shadow tables, have them applied, and commit. A client of version 2 commits by sending; one that
/// knows transactions is told the verdict and the outcome, and decides. What breaks off, stalls or is invalid before a
/// commit leaves no trace.
/// </summary>
public sealed unsafe class Session : IEventHandler, ITimed
{
    const int InputSize = 32 * 1024;

    /// <summary>
    /// In a crowd a client gets this part of the time-out for its turn: the larger one, as a busy machine may take a while to
    /// give the client its time, and half as much for each that stalled right before it, down to the smaller one, and so many
    /// milliseconds at least.
    /// </summary>
    const int FirstCrowdShare = 50, CrowdShare = 2000;
    const long LeastPatience = 2;

    /// <summary>The most that is received from a client, in input buffers, before traffic gets its turn.</summary>
    const int FairShare = 4;

    const int ListingSize = Wire.HelloSize + (Tables.PifCount * (Wire.PifSize + (RuleCheck.MostRules * Wire.RuleSize))) + 1;
    const int OutcomeSize = Transactions.HeadSize + 4 + Transactions.OutcomeSize + (Transactions.MostEntries * Transactions.EntrySize);

    readonly EventLoop _loop;
    readonly Tables _tables;
    readonly Transaction _transaction;
    readonly UpdateReader _update;
    readonly long _timeout;
    readonly int _mostSockets;
    readonly SelfForwarding? _selfForwarding;
    readonly int _kind;
    readonly Action _whenApplied;
    readonly Action _whenEnded;
    readonly NativeArray<byte> _input = new(InputSize);

    // Holds a listing that a slow client has not read yet, and all that can come behind it.
    readonly NativeArray<byte> _output = new(ListingSize + Transactions.HeadSize + Transactions.VerdictSize + Transactions.LongestText + (2 * OutcomeSize));

    State _state;
    int _fd = -1;
    uint _generation;
    Sockets.PeerIds _peer;
    long _deadline = long.MaxValue;
    int _inputLength;
    int _outputAt;
    int _outputLength;
    bool _watched;

    // What the client was given for its turn, and how many stalled in a row, in a crowd, before it.
    long _patience;
    int _stalledInARow;

    // Of the message that is being received: what is still to come of its body.
    uint _bodyToCome;
    long _confirmation;
    DoneStatus _done;

    public Session(EventLoop loop, Tables tables, Transaction transaction, long timeout, int mostSockets, SelfForwarding? selfForwarding)
    {
        _loop = loop;
        _tables = tables;
        _transaction = transaction;
        _update = new(tables);
        _timeout = timeout;
        _mostSockets = mostSockets;
        _selfForwarding = selfForwarding;
        _whenApplied = OnApplied;
        _whenEnded = OnEnded;
        _kind = loop.AddHandler(this);
    }

    enum State
    {
        Idle,

        /// <summary>The first byte will tell which kind of client it is.</summary>
        Greeted,

        /// <summary>Version 2: the tables are being received.</summary>
        Receiving,

        /// <summary>Version 2: the tables are being put in force for good.</summary>
        Replacing,

        /// <summary>The message with the tables is to come.</summary>
        BeforeTables,

        /// <summary>The tables are being received.</summary>
        InTables,

        /// <summary>The tables are valid: the client will apply them, or hang up.</summary>
        Staged,

        /// <summary>They are being put in force.</summary>
        Applying,

        /// <summary>They are in force: the client will commit or roll back.</summary>
        Applied,

        /// <summary>The transaction is being ended.</summary>
        Ending,

        /// <summary>All is said; what is not sent yet is.</summary>
        Closing,
    }

    public bool IsIdle => _state == State.Idle;

    /// <summary>Called when the client is gone and the next may begin.</summary>
    public Action? Ended { get; set; }

    /// <summary>The client is not listened to: what it does changes nothing now.</summary>
    bool IsDeaf => _state is State.Replacing or State.Applying or State.Ending;

    public void Begin(int client, Sockets.PeerIds who)
    {
        _fd = client;
        _peer = who;
        _generation++;
        _state = State.Greeted;
        _inputLength = _outputAt = 0;
        _outputLength = WriteListing();
        _patience = _timeout;
        _deadline = _loop.Now + _patience;
        Flush();
    }

    /// <summary>Has the client get on with its turn, in its part of the time-out; a change that is in force is not hurried.</summary>
    public void Hurry()
    {
        if (_state is not (State.Greeted or State.Receiving or State.BeforeTables or State.InTables or State.Staged))
            return;
        long share = Math.Max(_timeout / CrowdShare, (_timeout / FirstCrowdShare) >> Math.Min(_stalledInARow, 32));
        _patience = Math.Max(LeastPatience, share);
        _deadline = Math.Min(_deadline, _loop.Now + _patience);
    }

    public void OnEvents(EventKey key, Events events)
    {
        if (!key.IsOf(_generation) || _state == State.Idle || IsDeaf)
            return;
        Flush();
        if (_state == State.Closing && (events & Events.HangUp) != 0)
            End();
        else if (_state is not (State.Idle or State.Closing))
            Receive();
    }

    public long Deadline => _deadline;

    public void OnTime(long now)
    {
        // What it sent in time counts, however late this gets to read it.
        if (_state == State.Applied)
            Receive();
        if (_state == State.Applied)
        {
            Say($"did not commit in time");
            RollBack(DoneStatus.TimedOut);
            return;
        }

        // What it did not read was the end of the story.
        if (_state != State.Closing)
            Say($"stalled for {_patience} ms: dropped, nothing changed");
        int stalled = _stalledInARow + 1;
        End(stalled);
    }

    int WriteListing()
    {
        Span<byte> to = _output.Span;
        Wire.WriteHello(to);
        int at = Wire.HelloSize;
        for (int i = 0; i < _tables.Pifs.Length; i++)
        {
            Tables.PifEntry entry = _tables.Pifs[i];
            ReadOnlySpan<Rule> rules = _tables.Rules(i, _tables.Active);
            Wire.WritePif(to[at..], entry.Number, entry.Name, entry.Capabilities | Capabilities.Transactions, rules.Length);
            at += Wire.PifSize;
            foreach (ref readonly Rule rule in rules)
            {
                Wire.WriteRule(to[at..], in rule);
                at += Wire.RuleSize;
            }
        }

        to[at++] = Wire.End;
        return at;
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
            End();
        else
            Watch(Events.In | Events.ReadHangUp);
    }

    void Watch(Events interest)
    {
        ulong data = new EventKey(_kind, 0, _generation).Word;
        Result result = _watched ? _loop.Epoll.Modify(_fd, interest, data) : _loop.Epoll.Add(_fd, interest, data);
        _watched = result.Ok;
        if (!result.Ok)
            Lose();
    }

    /// <summary>Stops listening to the client: its hanging up would be told again and again.</summary>
    void Ignore()
    {
        _deadline = long.MaxValue;
        if (_watched)
            _ = _loop.Epoll.Remove(_fd).Ok;
        _watched = false;
    }

    void Receive()
    {
        for (int i = 0; i < FairShare && _state is not (State.Idle or State.Closing) && !IsDeaf; i++)
        {
            Result received = Sockets.Receive(_fd, _input.Pointer + _inputLength, InputSize - _inputLength);
            if (received.Ok && received.Value > 0)
            {
                _inputLength += received.Value;
                ParseAll();
            }
            else if (received.Is(Errno.EAGAIN))
            {
                return;
            }
            else if (!received.Is(Errno.EINTR))
            {
                Lose();
            }
        }
    }

    /// <summary>The client hung up. One that only looked does so; any other takes its update with it.</summary>
    void Lose()
    {
        switch (_state)
        {
            case State.Greeted or State.Closing:
                End();
                break;
            case State.Applied:
                Say($"hung up without committing");
                RollBack(DoneStatus.ProtocolError);
                break;
            default:
                Say($"hung up: nothing changed");
                End();
                break;
        }
    }

    void ParseAll()
    {
        while (!IsDeaf && _state is not (State.Idle or State.Closing))
        {
            ReadOnlySpan<byte> bytes = _input.Span[.._inputLength];
            uint generationBefore = _generation;
            int taken = _state switch
            {
                State.Greeted => TakeFirst(bytes),
                State.Receiving or State.InTables => TakeUpdate(bytes),
                _ => TakeMessage(bytes),
            };
            // The session may have ended, and even the next one begun, whose input is none of this.
            if (taken < 0 || _generation != generationBefore)
                return;
            bytes[taken..].CopyTo(_input.Span);
            _inputLength -= taken;
            if (taken == 0)
                return;
        }
    }

    // Each of these says how many bytes it took; 0 for needing more, -1 if there is no use in going on.
    int TakeFirst(ReadOnlySpan<byte> bytes)
    {
        if (bytes.IsEmpty)
            return 0;
        if (bytes[0] != Transactions.Magic[0])
        {
            _update.Begin();
            _state = State.Receiving;
            return TakeUpdate(bytes);
        }

        if (bytes.Length < Transactions.HelloSize)
            return 0;
        if (!Transactions.IsHello(bytes))
        {
            Say($"asks for what this version does not know: dropped");
            End();
            return -1;
        }

        _state = State.BeforeTables;
        return Transactions.HelloSize;
    }

    int TakeMessage(ReadOnlySpan<byte> bytes)
    {
        if (_bodyToCome > 0)
        {
            // Of a message that may be skipped.
            int skipped = (int)Math.Min(_bodyToCome, (uint)bytes.Length);
            _bodyToCome -= (uint)skipped;
            return skipped;
        }

        if (bytes.Length < Transactions.HeadSize)
            return 0;
        uint length = BinaryPrimitives.ReadUInt32BigEndian(bytes[1..]);
        switch (_state, (MessageType)bytes[0])
        {
            case (State.BeforeTables, MessageType.Tables):
                _bodyToCome = length;
                _update.Begin();
                _state = State.InTables;
                return Transactions.HeadSize;
            case (State.Staged, MessageType.Apply) when length == 4:
                if (bytes.Length < Transactions.HeadSize + 4)
                    return 0;
                Apply(BinaryPrimitives.ReadUInt32BigEndian(bytes[Transactions.HeadSize..]));
                return Transactions.HeadSize + 4;
            case (State.Applied, MessageType.Commit) when length == 0:
                Ignore();
                _state = State.Ending;
                _done = DoneStatus.Committed;
                _transaction.Commit(_whenEnded);
                return Transactions.HeadSize;
            case (State.Applied, MessageType.Rollback) when length == 0:
                RollBack(DoneStatus.RolledBack);
                return Transactions.HeadSize;
            default:
                break;
        }

        if (Transactions.MaySkip(bytes[0]))
        {
            _bodyToCome = length;
            return Transactions.HeadSize;
        }

        Say($"broke the protocol with a message of type {bytes[0]} and length {length}");
        if (_state == State.Applied)
            RollBack(DoneStatus.ProtocolError);
        else
            End();
        return -1;
    }

    int TakeUpdate(ReadOnlySpan<byte> bytes)
    {
        bool inMessage = _state == State.InTables;
        if (inMessage && bytes.Length > _bodyToCome)
            bytes = bytes[..(int)_bodyToCome];
        UpdateReader.Progress progress = _update.Take(bytes, out int taken);
        _bodyToCome -= inMessage ? (uint)taken : 0;
        if (progress == UpdateReader.Progress.NeedsMore && inMessage && bytes.Length - taken == _bodyToCome)
        {
            // The body is over, and the update is not.
            Refuse(VerdictStatus.Invalid, 0, Transactions.NoRule, "the update breaks off");
            return -1;
        }

        if (progress == UpdateReader.Progress.NeedsMore)
            return taken;
        if (progress == UpdateReader.Progress.Invalid)
            Refuse(VerdictStatus.Invalid, _update.FaultPif, _update.FaultRule, _update.Reason);
        else if (inMessage && _bodyToCome > 0)
            Refuse(VerdictStatus.Invalid, 0, Transactions.NoRule, "bytes behind the end of the update");
        else
            Judge();
        return _state is State.Staged or State.Replacing ? taken : -1;
    }

    /// <summary>The update is complete and each rule is valid: looks at it as a whole.</summary>
    void Judge()
    {
        int wanted = _tables.SocketsWanted(_tables.Shadow);
        if (wanted > _mostSockets)
        {
            Refuse(
                VerdictStatus.TooManySockets,
                0,
                Transactions.NoRule,
                $"the tables want {wanted} listening sockets, and {_mostSockets} are possible under the limit of descriptors");
            return;
        }

        if (_selfForwarding?.Find(_tables, _tables.Shadow) is string loops)
        {
            Refuse(VerdictStatus.SelfForwarding, 0, Transactions.NoRule, loops);
            return;
        }

        if (_state == State.InTables)
        {
            _state = State.Staged;
            _deadline = _loop.Now + _patience;
            _outputLength += Transactions.WriteVerdict(_output.Span[_outputLength..], VerdictStatus.Valid, 0, Transactions.NoRule, "");
            Flush();
            return;
        }

        // The update is complete, so hanging up is no reason to stop.
        Ignore();
        _state = State.Replacing;
        _transaction.Apply(commit: true, _whenEnded);
    }

    void Refuse(VerdictStatus status, byte pif, uint rule, string reason)
    {
        Say($"update refused, nothing changed: {reason}");
        if (_state == State.InTables)
        {
            _outputLength += Transactions.WriteVerdict(_output.Span[_outputLength..], status, pif, rule, reason);
            _state = State.Closing;
            Flush();
        }
        else
        {
            End();
        }
    }

    void Apply(uint seconds)
    {
        _confirmation = Math.Max(_timeout, Math.Min(seconds, Transactions.LongestConfirmation) * 1000L);
        Ignore();
        _state = State.Applying;
        _transaction.Apply(commit: false, _whenApplied);
    }

    void OnApplied()
    {
        _state = State.Applied;
        _deadline = _loop.Now + _confirmation;
        WriteOutcome(MessageType.Outcome, _transaction.Failures, _transaction.FailureCount);
        Flush();
        if (_state == State.Applied)
            ParseAll();
    }

    void RollBack(DoneStatus status)
    {
        Ignore();
        _state = State.Ending;
        _done = status;
        _transaction.Rollback(_whenEnded);
    }

    /// <summary>The transaction is over: the new tables are in force for good, or the old ones again.</summary>
    void OnEnded()
    {
        if (_state == State.Replacing)
        {
            LogFailures();
            LogEnd("replaced the tables");
            End();
            return;
        }

        if (_done == DoneStatus.Committed)
            LogFailures();
        LogEnd(_done == DoneStatus.Committed ? "replaced the tables" : "rolled back");
        // Nothing that a rollback needs can be lost: the old sockets were never closed.
        WriteOutcome(MessageType.Done, default, 0);
        _state = State.Closing;
        _deadline = _loop.Now + _timeout;
        Flush();
    }

    void WriteOutcome(MessageType type, ReadOnlySpan<ListenFailure> failures, int count)
    {
        Span<byte> to = _output.Span[_outputLength..];
        int at = Transactions.HeadSize;
        if (type == MessageType.Done)
        {
            BinaryPrimitives.WriteUInt32BigEndian(to[at..], (uint)_done);
            at += 4;
        }

        BinaryPrimitives.WriteUInt32BigEndian(to[at..], (uint)count);
        BinaryPrimitives.WriteUInt32BigEndian(to[(at + 4)..], (uint)failures.Length);
        at += Transactions.OutcomeSize;
        foreach (ref readonly ListenFailure failure in failures)
        {
            Transactions.WriteEntry(to[at..], _tables.Pifs[failure.Pif].Number, (uint)failure.Rule, failure.Port, failure.Error);
            at += Transactions.EntrySize;
        }

        Transactions.WriteHead(to, type, at - Transactions.HeadSize);
        _outputLength += at;
    }

    void LogFailures()
    {
        foreach (ref readonly ListenFailure failure in _transaction.Failures)
            Log.Warn($"{BindFailure.Text(in *_tables.Rule(failure.Pif, _tables.Active, failure.Rule), failure.Port, failure.Error)}");
        if (_transaction.FailureCount > _transaction.Failures.Length)
            Log.Warn($"and {_transaction.FailureCount - _transaction.Failures.Length} more ports");
    }

    void LogEnd(string what) => Log.Info(
        $"control: user {_peer.User} (process {_peer.Pid}) {what}: sockets: {_transaction.Stolen} kept, {_transaction.Opened} opened, {_transaction.Closed} closed, {_transaction.FailureCount} failed");

    void Say(string what) => Log.Warn($"control: user {_peer.User} (process {_peer.Pid}) {what}");

    void End(int stalled = 0)
    {
        _stalledInARow = stalled;
        // Closing a UNIX socket with bytes unread would reset the client. One that never stops sending is stopped first.
        _ = Sockets.Shutdown(_fd, Sockets.ShutRead).Ok;
        while (Sockets.Receive(_fd, _input.Pointer, InputSize) is { Ok: true, Value: > 0 })
        {
        }

        Descriptors.Close(_fd);
        _fd = -1;
        _generation++;
        _watched = false;
        _bodyToCome = 0;
        _state = State.Idle;
        _deadline = long.MaxValue;
        Ended?.Invoke();
    }
}
