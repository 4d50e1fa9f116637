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
/// <code>
/// Idle -- Begin, listing --> Greeted -- client hello --> BeforeTables -- TABLES --> InTables -- VERDICT --> Staged
///                               |                                                      |                      | APPLY
///                               | first byte of an update                              | VERDICT: refused     v
///                               v                                                      |                   Applying
///                           Receiving -- complete --> Replacing -- applied --> Idle    |                      | OUTCOME
///                                                                                      v                      v
///                                                                Idle &lt;-- sent -- Closing &lt;-- DONE -- Ending &lt;-- Applied
/// </code>
/// Hanging up and stalling lead to Idle from everywhere but Applied, where they lead to Ending by a rollback. While the
/// transaction works (Replacing, Applying, Ending) the client is not listened to.
/// </summary>
public sealed class Session : IControlConnectionUser
{
    const int MostListing = Wire.HelloSize + (Tables.PifCount * (Wire.PifSize + (RuleCheck.MostRules * Wire.RuleSize))) + 1;

    readonly EventLoop _loop;
    readonly Tables _tables;
    readonly Transaction _transaction;
    readonly UpdateReader _update;
    readonly ControlConnection _connection;
    readonly long _timeout;
    readonly int _mostSockets;
    readonly SelfForwarding? _selfForwarding;
    readonly Action _whenApplied;
    readonly Action _whenEnded;

    State _state;
    Sockets.PeerIds _peer;
    Action<bool>? _whenOver;

    // Milliseconds that the client is given for each of its steps.
    long _patience;

    // Of the message that is being received: what is still to come of its body.
    uint _bodyToCome;
    long _confirmation;
    DoneStatus _done;

    /// <param name="timeout">Milliseconds after which a client that stalls is dropped.</param>
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
        // Room for a listing that a slow client has not read yet, and all that can come behind it.
        _connection = new(loop, this, MostListing + VerdictMessage.MostBytes + OutcomeMessage.MostBytes + DoneMessage.MostBytes);
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

    public long Timeout => _timeout;

    /// <summary>What has a deadline while there is a client.</summary>
    public ITimed Timer => _connection;

    /// <summary>Gives a client its turn.</summary>
    /// <param name="patience">Milliseconds for each of its steps.</param>
    /// <param name="whenOver">Called when the client is gone and the next may begin, with true if it stalled.</param>
    public void Begin(int client, Sockets.PeerIds peer, long patience, Action<bool> whenOver)
    {
        _peer = peer;
        _patience = patience;
        _whenOver = whenOver;
        _bodyToCome = 0;
        _state = State.Greeted;
        _connection.Open(client);
        _connection.Deadline = _loop.Now + patience;
        _connection.Wrote(WriteListing(_connection.Room));
        _connection.Send();
    }

    /// <summary>Leaves the client so many milliseconds for each step that is to come; a change that is in force is not hurried.</summary>
    public void Hurry(long patience)
    {
        if (_state is not (State.Greeted or State.Receiving or State.BeforeTables or State.InTables or State.Staged))
            return;
        _patience = patience;
        _connection.Deadline = Math.Min(_connection.Deadline, _loop.Now + patience);
    }

    int WriteListing(Span<byte> to)
    {
        TablesWriter writer = new(to);
        writer.Hello();
        for (int i = 0; i < _tables.Pifs.Length; i++)
        {
            Tables.PifEntry pif = _tables.Pifs[i];
            writer.Pif(pif.Number, pif.Name, pif.Capabilities | Capabilities.Transactions, _tables.Rules(i, _tables.Active));
        }

        writer.End();
        return writer.Length;
    }

    int IControlConnectionUser.Take(ReadOnlySpan<byte> bytes) => _state switch
    {
        State.Greeted => TakeFirst(bytes),
        State.Receiving or State.InTables => TakeUpdate(bytes),
        _ => TakeMessage(bytes),
    };

    /// <summary>The client hung up. One that only looked does so; any other takes its update with it.</summary>
    void IControlConnectionUser.OnHungUp()
    {
        if (_state == State.Applied)
        {
            Say("hung up without committing");
            RollBack(DoneStatus.ProtocolError);
            return;
        }

        if (_state is not (State.Greeted or State.Closing))
            Say("hung up: nothing changed");
        End();
    }

    void IControlConnectionUser.OnAllSent() => End();

    void IControlConnectionUser.OnDeadline()
    {
        if (_state == State.Applied)
        {
            // What it sent in time counts, however late this gets to read it.
            _connection.Receive();
            if (_state != State.Applied)
                return;
            Say("did not commit in time");
            RollBack(DoneStatus.TimedOut);
            return;
        }

        // In Closing the transaction is over: only the client's knowledge of it is missing.
        if (_state != State.Closing)
            Say($"stalled for {_patience} ms: dropped, nothing changed");
        End(stalled: true);
    }

    int TakeFirst(ReadOnlySpan<byte> bytes)
    {
        if (bytes.IsEmpty)
            return 0;
        if (bytes[0] != ClientHello.Magic[0])
        {
            _update.Begin();
            _state = State.Receiving;
            return TakeUpdate(bytes);
        }

        if (bytes.Length < ClientHello.Size)
            return 0;
        if (!ClientHello.IsUnderstood(bytes))
        {
            Say("asks for what this version does not know: dropped");
            End();
            return 0;
        }

        _state = State.BeforeTables;
        return ClientHello.Size;
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

        if (bytes.Length < MessageHead.Size)
            return 0;
        MessageHead head = MessageHead.Read(bytes);
        switch (_state, head.Type)
        {
            case (State.BeforeTables, MessageType.Tables):
                _bodyToCome = head.Length;
                _update.Begin();
                _state = State.InTables;
                return MessageHead.Size;
            case (State.Staged, MessageType.Apply) when head.Length == ApplyMessage.BodySize:
                if (bytes.Length < ApplyMessage.Size)
                    return 0;
                Apply(ApplyMessage.Read(bytes[MessageHead.Size..]).Seconds);
                return ApplyMessage.Size;
            case (State.Applied, MessageType.Commit) when head.Length == 0:
                _connection.Pause();
                _state = State.Ending;
                _done = DoneStatus.Committed;
                _transaction.Commit(_whenEnded);
                return MessageHead.Size;
            case (State.Applied, MessageType.Rollback) when head.Length == 0:
                RollBack(DoneStatus.RolledBack);
                return MessageHead.Size;
            default:
                break;
        }

        if (head.MaySkip)
        {
            _bodyToCome = head.Length;
            return MessageHead.Size;
        }

        Say($"broke the protocol with a message of type {(byte)head.Type} and length {head.Length}");
        if (_state == State.Applied)
            RollBack(DoneStatus.ProtocolError);
        else
            End();
        return 0;
    }

    int TakeUpdate(ReadOnlySpan<byte> bytes)
    {
        bool inMessage = _state == State.InTables;
        if (inMessage && bytes.Length > _bodyToCome)
            bytes = bytes[..(int)_bodyToCome];
        UpdateReader.Progress progress = _update.Take(bytes, out int taken);
        _bodyToCome -= inMessage ? (uint)taken : 0;
        if (progress == UpdateReader.Progress.NeedsMore && inMessage && bytes.Length - taken == _bodyToCome)
            // The body is over, and the update is not.
            Refuse(new(VerdictStatus.Invalid, 0, VerdictMessage.NoRule, "the update breaks off"));
        else if (progress == UpdateReader.Progress.Invalid)
            Refuse(new(VerdictStatus.Invalid, _update.FaultPif, _update.FaultRule, _update.Reason));
        else if (progress == UpdateReader.Progress.Complete && inMessage && _bodyToCome > 0)
            Refuse(new(VerdictStatus.Invalid, 0, VerdictMessage.NoRule, "bytes behind the end of the update"));
        else if (progress == UpdateReader.Progress.Complete)
            Judge();
        return taken;
    }

    /// <summary>The update is complete and each rule is valid: looks at it as a whole.</summary>
    void Judge()
    {
        int wanted = _tables.SocketsWanted(_tables.Shadow);
        if (wanted > _mostSockets)
        {
            Refuse(new(
                VerdictStatus.TooManySockets,
                0,
                VerdictMessage.NoRule,
                $"the tables want {wanted} listening sockets, and {_mostSockets} are possible under the limit of descriptors"));
            return;
        }

        if (_selfForwarding?.Find(_tables, _tables.Shadow) is string loops)
        {
            Refuse(new(VerdictStatus.SelfForwarding, 0, VerdictMessage.NoRule, loops));
            return;
        }

        if (ClientAddress.WhyNotKept(_tables, _tables.Shadow) is string why)
        {
            Refuse(new(VerdictStatus.Invalid, 0, VerdictMessage.NoRule, why));
            return;
        }

        if (_state == State.InTables)
        {
            _state = State.Staged;
            _connection.Deadline = _loop.Now + _patience;
            _connection.Wrote(VerdictMessage.Valid.Write(_connection.Room));
            _connection.Send();
            return;
        }

        // The update is complete, so hanging up is no reason to stop.
        _connection.Pause();
        _state = State.Replacing;
        _transaction.Apply(commit: true, _whenEnded);
    }

    void Refuse(VerdictMessage verdict)
    {
        Say($"update refused, nothing changed: {verdict.Text}");
        if (_state != State.InTables)
        {
            End();
            return;
        }

        _connection.Wrote(verdict.Write(_connection.Room));
        _state = State.Closing;
        _connection.SendAndClose();
    }

    void Apply(uint seconds)
    {
        _confirmation = Math.Max(_timeout, Math.Min(seconds, ApplyMessage.LongestConfirmation) * 1000L);
        _connection.Pause();
        _state = State.Applying;
        _transaction.Apply(commit: false, _whenApplied);
    }

    void OnApplied()
    {
        _state = State.Applied;
        _connection.Deadline = _loop.Now + _confirmation;
        _connection.Wrote(OutcomeMessage.Write(_connection.Room, _transaction.FailureCount, Named(_transaction.Failures)));
        _connection.Send();
        if (_state == State.Applied)
            _connection.Resume();
    }

    void RollBack(DoneStatus status)
    {
        _connection.Pause();
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
        _connection.Wrote(DoneMessage.Write(_connection.Room, _done, 0, []));
        _state = State.Closing;
        _connection.Deadline = _loop.Now + _timeout;
        _connection.SendAndClose();
    }

    void End(bool stalled = false)
    {
        _connection.Close();
        _state = State.Idle;
        _whenOver?.Invoke(stalled);
    }

    PortFailure[] Named(ReadOnlySpan<ListenFailure> failures)
    {
        PortFailure[] named = new PortFailure[failures.Length];
        for (int i = 0; i < named.Length; i++)
            named[i] = new(_tables.Pifs[failures[i].Pif].Number, (uint)failures[i].Rule, failures[i].Port, failures[i].Error);
        return named;
    }

    unsafe void LogFailures()
    {
        foreach (ref readonly ListenFailure failure in _transaction.Failures)
            Log.Warn($"{BindFailure.Text(in *_tables.Rule(failure.Pif, _tables.Active, failure.Rule), failure.Port, failure.Error)}");
        if (_transaction.FailureCount > _transaction.Failures.Length)
            Log.Warn($"and {_transaction.FailureCount - _transaction.Failures.Length} more ports");
    }

    void LogEnd(string what) => Log.Info(
        $"control: user {_peer.User} (process {_peer.Pid}) {what}: sockets: {_transaction.Stolen} kept, {_transaction.Opened} opened, {_transaction.Closed} closed, {_transaction.FailureCount} failed");

    void Say(string what) => Log.Warn($"control: user {_peer.User} (process {_peer.Pid}) {what}");
}
