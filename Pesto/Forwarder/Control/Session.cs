using System.Buffers.Binary;
using Pesto.Linux;
using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Forwarder;

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

    readonly Loop loop;
    readonly Tables tables;
    readonly Transaction transaction;
    readonly UpdateReader update;
    readonly long timeout;
    readonly int mostSockets;
    readonly SelfForwarding? selfForwarding;
    readonly int kind;
    readonly Action whenApplied;
    readonly Action whenEnded;
    readonly NativeArray<byte> input = new(InputSize);

    // Holds a listing that a slow client has not read yet, and all that can come behind it.
    readonly NativeArray<byte> output = new(ListingSize + Transactions.HeadSize + Transactions.VerdictSize + Transactions.LongestText + (2 * OutcomeSize));

    State state;
    int fd = -1;
    uint generation;
    Sockets.PeerIds peer;
    long deadline = long.MaxValue;
    int inputLength;
    int outputAt;
    int outputLength;
    bool watched;

    // What the client was given for its turn, and how many stalled in a row, in a crowd, before it.
    long patience;
    int stalledInARow;

    // Of the message that is being received: what is still to come of its body.
    uint bodyToCome;
    long confirmation;
    DoneStatus done;

    public Session(Loop loop, Tables tables, Transaction transaction, long timeout, int mostSockets, SelfForwarding? selfForwarding)
    {
        this.loop = loop;
        this.tables = tables;
        this.transaction = transaction;
        this.update = new(tables);
        this.timeout = timeout;
        this.mostSockets = mostSockets;
        this.selfForwarding = selfForwarding;
        this.whenApplied = this.OnApplied;
        this.whenEnded = this.OnEnded;
        this.kind = loop.AddHandler(this);
        loop.AddTimed(this);
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

    public bool IsIdle => this.state == State.Idle;

    /// <summary>Called when the client is gone and the next may begin.</summary>
    public Action? Ended { get; set; }

    /// <summary>The client is not listened to: what it does changes nothing now.</summary>
    bool IsDeaf => this.state is State.Replacing or State.Applying or State.Ending;

    public void Begin(int client, Sockets.PeerIds who)
    {
        this.fd = client;
        this.peer = who;
        this.generation++;
        this.state = State.Greeted;
        this.inputLength = this.outputAt = 0;
        this.outputLength = this.WriteListing();
        this.patience = this.timeout;
        this.deadline = this.loop.Now + this.patience;
        this.Flush();
    }

    /// <summary>Has the client get on with its turn, in its part of the time-out; a change that is in force is not hurried.</summary>
    public void Hurry()
    {
        if (this.state is not (State.Greeted or State.Receiving or State.BeforeTables or State.InTables or State.Staged))
            return;
        long share = Math.Max(this.timeout / CrowdShare, (this.timeout / FirstCrowdShare) >> Math.Min(this.stalledInARow, 32));
        this.patience = Math.Max(LeastPatience, share);
        this.deadline = Math.Min(this.deadline, this.loop.Now + this.patience);
    }

    public void OnEvents(EventKey key, Events events)
    {
        if (!key.IsOf(this.generation) || this.state == State.Idle || this.IsDeaf)
            return;
        this.Flush();
        if (this.state == State.Closing && (events & Events.HangUp) != 0)
            this.End();
        else if (this.state is not (State.Idle or State.Closing))
            this.Receive();
    }

    public long Deadline => this.deadline;

    public void OnTime(long now)
    {
        // What it sent in time counts, however late this gets to read it.
        if (this.state == State.Applied)
            this.Receive();
        if (this.state == State.Applied)
        {
            this.Say($"did not commit in time");
            this.RollBack(DoneStatus.TimedOut);
            return;
        }

        // What it did not read was the end of the story.
        if (this.state != State.Closing)
            this.Say($"stalled for {this.patience} ms: dropped, nothing changed");
        int stalled = this.stalledInARow + 1;
        this.End(stalled);
    }

    int WriteListing()
    {
        Span<byte> to = this.output.Span;
        Wire.WriteHello(to);
        int at = Wire.HelloSize;
        for (int i = 0; i < this.tables.Pifs.Length; i++)
        {
            Tables.PifEntry entry = this.tables.Pifs[i];
            ReadOnlySpan<Rule> rules = this.tables.Rules(i, this.tables.Active);
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
        while (this.outputAt < this.outputLength)
        {
            Result sent = Sockets.Send(this.fd, this.output.Pointer + this.outputAt, this.outputLength - this.outputAt);
            if (sent.Ok)
            {
                this.outputAt += sent.Value;
            }
            else if (sent.Is(Errno.EAGAIN))
            {
                break;
            }
            else if (!sent.Is(Errno.EINTR))
            {
                this.outputAt = this.outputLength;
            }
        }

        if (this.outputAt < this.outputLength)
        {
            this.Watch(Events.Out | (this.state == State.Closing ? Events.None : Events.In | Events.ReadHangUp));
            return;
        }

        this.outputAt = this.outputLength = 0;
        if (this.state == State.Closing)
            this.End();
        else
            this.Watch(Events.In | Events.ReadHangUp);
    }

    void Watch(Events interest)
    {
        ulong data = new EventKey(this.kind, 0, this.generation).Word;
        Result result = this.watched ? this.loop.Epoll.Change(this.fd, interest, data) : this.loop.Epoll.Watch(this.fd, interest, data);
        this.watched = result.Ok;
        if (!result.Ok)
            this.Lose();
    }

    /// <summary>Stops listening to the client: its hanging up would be told again and again.</summary>
    void Ignore()
    {
        this.deadline = long.MaxValue;
        if (this.watched)
            _ = this.loop.Epoll.Forget(this.fd).Ok;
        this.watched = false;
    }

    void Receive()
    {
        for (int i = 0; i < FairShare && this.state is not (State.Idle or State.Closing) && !this.IsDeaf; i++)
        {
            Result received = Sockets.Receive(this.fd, this.input.Pointer + this.inputLength, InputSize - this.inputLength);
            if (received.Ok && received.Value > 0)
            {
                this.inputLength += received.Value;
                this.ParseAll();
            }
            else if (received.Is(Errno.EAGAIN))
            {
                return;
            }
            else if (!received.Is(Errno.EINTR))
            {
                this.Lose();
            }
        }
    }

    /// <summary>The client hung up. One that only looked does so; any other takes its update with it.</summary>
    void Lose()
    {
        switch (this.state)
        {
            case State.Greeted or State.Closing:
                this.End();
                break;
            case State.Applied:
                this.Say($"hung up without committing");
                this.RollBack(DoneStatus.ProtocolError);
                break;
            default:
                this.Say($"hung up: nothing changed");
                this.End();
                break;
        }
    }

    void ParseAll()
    {
        while (!this.IsDeaf && this.state is not (State.Idle or State.Closing))
        {
            ReadOnlySpan<byte> bytes = this.input.Span[..this.inputLength];
            uint generationBefore = this.generation;
            int taken = this.state switch
            {
                State.Greeted => this.TakeFirst(bytes),
                State.Receiving or State.InTables => this.TakeUpdate(bytes),
                _ => this.TakeMessage(bytes),
            };
            // The session may have ended, and even the next one begun, whose input is none of this.
            if (taken < 0 || this.generation != generationBefore)
                return;
            bytes[taken..].CopyTo(this.input.Span);
            this.inputLength -= taken;
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
            this.update.Begin();
            this.state = State.Receiving;
            return this.TakeUpdate(bytes);
        }

        if (bytes.Length < Transactions.HelloSize)
            return 0;
        if (!Transactions.IsHello(bytes))
        {
            this.Say($"asks for what this version does not know: dropped");
            this.End();
            return -1;
        }

        this.state = State.BeforeTables;
        return Transactions.HelloSize;
    }

    int TakeMessage(ReadOnlySpan<byte> bytes)
    {
        if (this.bodyToCome > 0)
        {
            // Of a message that may be skipped.
            int skipped = (int)Math.Min(this.bodyToCome, (uint)bytes.Length);
            this.bodyToCome -= (uint)skipped;
            return skipped;
        }

        if (bytes.Length < Transactions.HeadSize)
            return 0;
        uint length = BinaryPrimitives.ReadUInt32BigEndian(bytes[1..]);
        switch (this.state, (MessageType)bytes[0])
        {
            case (State.BeforeTables, MessageType.Tables):
                this.bodyToCome = length;
                this.update.Begin();
                this.state = State.InTables;
                return Transactions.HeadSize;
            case (State.Staged, MessageType.Apply) when length == 4:
                if (bytes.Length < Transactions.HeadSize + 4)
                    return 0;
                this.Apply(BinaryPrimitives.ReadUInt32BigEndian(bytes[Transactions.HeadSize..]));
                return Transactions.HeadSize + 4;
            case (State.Applied, MessageType.Commit) when length == 0:
                this.Ignore();
                this.state = State.Ending;
                this.done = DoneStatus.Committed;
                this.transaction.Commit(this.whenEnded);
                return Transactions.HeadSize;
            case (State.Applied, MessageType.Rollback) when length == 0:
                this.RollBack(DoneStatus.RolledBack);
                return Transactions.HeadSize;
            default:
                break;
        }

        if (Transactions.MaySkip(bytes[0]))
        {
            this.bodyToCome = length;
            return Transactions.HeadSize;
        }

        this.Say($"broke the protocol with a message of type {bytes[0]} and length {length}");
        if (this.state == State.Applied)
            this.RollBack(DoneStatus.ProtocolError);
        else
            this.End();
        return -1;
    }

    int TakeUpdate(ReadOnlySpan<byte> bytes)
    {
        bool inMessage = this.state == State.InTables;
        if (inMessage && bytes.Length > this.bodyToCome)
            bytes = bytes[..(int)this.bodyToCome];
        UpdateReader.Progress progress = this.update.Take(bytes, out int taken);
        this.bodyToCome -= inMessage ? (uint)taken : 0;
        if (progress == UpdateReader.Progress.NeedsMore && inMessage && bytes.Length - taken == this.bodyToCome)
        {
            // The body is over, and the update is not.
            this.Refuse(VerdictStatus.Invalid, 0, Transactions.NoRule, "the update breaks off");
            return -1;
        }

        if (progress == UpdateReader.Progress.NeedsMore)
            return taken;
        if (progress == UpdateReader.Progress.Invalid)
            this.Refuse(VerdictStatus.Invalid, this.update.FaultPif, this.update.FaultRule, this.update.Reason);
        else if (inMessage && this.bodyToCome > 0)
            this.Refuse(VerdictStatus.Invalid, 0, Transactions.NoRule, "bytes behind the end of the update");
        else
            this.Judge();
        return this.state is State.Staged or State.Replacing ? taken : -1;
    }

    /// <summary>The update is complete and each rule is valid: looks at it as a whole.</summary>
    void Judge()
    {
        int wanted = this.tables.SocketsWanted(this.tables.Shadow);
        if (wanted > this.mostSockets)
        {
            this.Refuse(
                VerdictStatus.TooManySockets,
                0,
                Transactions.NoRule,
                $"the tables want {wanted} listening sockets, and {this.mostSockets} are possible under the limit of descriptors");
            return;
        }

        if (this.selfForwarding?.Find(this.tables, this.tables.Shadow) is string loops)
        {
            this.Refuse(VerdictStatus.SelfForwarding, 0, Transactions.NoRule, loops);
            return;
        }

        if (this.state == State.InTables)
        {
            this.state = State.Staged;
            this.deadline = this.loop.Now + this.patience;
            this.outputLength += Transactions.WriteVerdict(this.output.Span[this.outputLength..], VerdictStatus.Valid, 0, Transactions.NoRule, "");
            this.Flush();
            return;
        }

        // The update is complete, so hanging up is no reason to stop.
        this.Ignore();
        this.state = State.Replacing;
        this.transaction.Apply(commit: true, this.whenEnded);
    }

    void Refuse(VerdictStatus status, byte pif, uint rule, string reason)
    {
        this.Say($"update refused, nothing changed: {reason}");
        if (this.state == State.InTables)
        {
            this.outputLength += Transactions.WriteVerdict(this.output.Span[this.outputLength..], status, pif, rule, reason);
            this.state = State.Closing;
            this.Flush();
        }
        else
        {
            this.End();
        }
    }

    void Apply(uint seconds)
    {
        this.confirmation = Math.Max(this.timeout, Math.Min(seconds, Transactions.LongestConfirmation) * 1000L);
        this.Ignore();
        this.state = State.Applying;
        this.transaction.Apply(commit: false, this.whenApplied);
    }

    void OnApplied()
    {
        this.state = State.Applied;
        this.deadline = this.loop.Now + this.confirmation;
        this.WriteOutcome(MessageType.Outcome, this.transaction.Failures, this.transaction.FailureCount);
        this.Flush();
        if (this.state == State.Applied)
            this.ParseAll();
    }

    void RollBack(DoneStatus status)
    {
        this.Ignore();
        this.state = State.Ending;
        this.done = status;
        this.transaction.Rollback(this.whenEnded);
    }

    /// <summary>The transaction is over: the new tables are in force for good, or the old ones again.</summary>
    void OnEnded()
    {
        if (this.state == State.Replacing)
        {
            this.LogFailures();
            this.LogEnd("replaced the tables");
            this.End();
            return;
        }

        if (this.done == DoneStatus.Committed)
            this.LogFailures();
        this.LogEnd(this.done == DoneStatus.Committed ? "replaced the tables" : "rolled back");
        // Nothing that a rollback needs can be lost: the old sockets were never closed.
        this.WriteOutcome(MessageType.Done, default, 0);
        this.state = State.Closing;
        this.deadline = this.loop.Now + this.timeout;
        this.Flush();
    }

    void WriteOutcome(MessageType type, ReadOnlySpan<Transaction.Failure> failures, int count)
    {
        Span<byte> to = this.output.Span[this.outputLength..];
        int at = Transactions.HeadSize;
        if (type == MessageType.Done)
        {
            BinaryPrimitives.WriteUInt32BigEndian(to[at..], (uint)this.done);
            at += 4;
        }

        BinaryPrimitives.WriteUInt32BigEndian(to[at..], (uint)count);
        BinaryPrimitives.WriteUInt32BigEndian(to[(at + 4)..], (uint)failures.Length);
        at += Transactions.OutcomeSize;
        foreach (ref readonly Transaction.Failure failure in failures)
        {
            Transactions.WriteEntry(to[at..], this.tables.Pifs[failure.Pif].Number, (uint)failure.Rule, failure.Port, failure.Error);
            at += Transactions.EntrySize;
        }

        Transactions.WriteHead(to, type, at - Transactions.HeadSize);
        this.outputLength += at;
    }

    void LogFailures()
    {
        foreach (ref readonly Transaction.Failure failure in this.transaction.Failures)
            Log.Warn($"{BindFailure.Text(in *this.tables.Rule(failure.Pif, this.tables.Active, failure.Rule), failure.Port, failure.Error)}");
        if (this.transaction.FailureCount > this.transaction.Failures.Length)
            Log.Warn($"and {this.transaction.FailureCount - this.transaction.Failures.Length} more ports");
    }

    void LogEnd(string what) => Log.Info(
        $"control: user {this.peer.User} (process {this.peer.Pid}) {what}: sockets: {this.transaction.Stolen} kept, {this.transaction.Opened} opened, {this.transaction.Closed} closed, {this.transaction.FailureCount} failed");

    void Say(string what) => Log.Warn($"control: user {this.peer.User} (process {this.peer.Pid}) {what}");

    void End(int stalled = 0)
    {
        this.stalledInARow = stalled;
        // Closing a UNIX socket with bytes unread would reset the client. One that never stops sending is stopped first.
        _ = Sockets.Shutdown(this.fd, Sockets.ShutRead).Ok;
        while (Sockets.Receive(this.fd, this.input.Pointer, InputSize) is { Ok: true, Value: > 0 })
        {
        }

        Descriptors.Close(this.fd);
        this.fd = -1;
        this.generation++;
        this.watched = false;
        this.bodyToCome = 0;
        this.state = State.Idle;
        this.deadline = long.MaxValue;
        this.Ended?.Invoke();
    }
}
