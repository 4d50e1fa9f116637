using System.Buffers.Binary;
using Pesto.Linux;
using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Forwarder;

/// <summary>
/// The exchange with the client whose turn it is, as a state machine that never waits: greet it with the tables, receive
/// new ones into the shadow tables, have them applied, close. What breaks off, stalls or is invalid changes nothing.
/// </summary>
public sealed unsafe class Session : IEventHandler, ITimed
{
    const int InputSize = 32 * 1024;
    const int OutputSize = Wire.HelloSize + (Tables.PifCount * (Wire.PifSize + (RuleCheck.MostRules * Wire.RuleSize))) + 1;

    readonly Loop loop;
    readonly Tables tables;
    readonly Transaction transaction;
    readonly long timeout;
    readonly int mostSockets;
    readonly SelfForwarding? selfForwarding;
    readonly int kind;
    readonly Action whenApplied;
    readonly NativeArray<byte> input = new(InputSize);
    readonly NativeArray<byte> output = new(OutputSize);

    State state;
    int fd = -1;
    uint generation;
    Sockets.PeerIds peer;
    long deadline = long.MaxValue;
    int inputLength;
    int outputAt;
    int outputLength;
    bool watched;

    // Where the update that is being received has got to.
    int pif;
    uint rulesToCome;

    public Session(Loop loop, Tables tables, Transaction transaction, long timeout, int mostSockets, SelfForwarding? selfForwarding)
    {
        this.loop = loop;
        this.tables = tables;
        this.transaction = transaction;
        this.timeout = timeout;
        this.mostSockets = mostSockets;
        this.selfForwarding = selfForwarding;
        this.whenApplied = this.OnApplied;
        this.kind = loop.AddHandler(this);
        loop.AddTimed(this);
    }

    enum State
    {
        Idle,

        /// <summary>The next byte is a pif's number or the end.</summary>
        AtTable,

        /// <summary>Rules of a table are to come.</summary>
        InTable,

        /// <summary>The transaction is under way; the client is not listened to.</summary>
        Applying,
    }

    public bool IsIdle => this.state == State.Idle;

    /// <summary>Called when the client is gone and the next may begin.</summary>
    public Action? Ended { get; set; }

    public void Begin(int client, Sockets.PeerIds who)
    {
        this.fd = client;
        this.peer = who;
        this.generation++;
        this.state = State.AtTable;
        this.inputLength = this.outputAt = 0;
        this.outputLength = this.WriteListing();
        this.deadline = this.loop.Now + this.timeout;
        this.tables.ClearShadow();
        if (this.Flush())
            this.Watch();
    }

    public void OnEvents(EventKey key, Events events)
    {
        if (!key.IsOf(this.generation) || this.state is State.Idle or State.Applying)
            return;
        if (this.outputAt < this.outputLength && !this.Flush())
            return;
        this.Watch();
        if ((events & ~Events.Out) != 0)
            this.Receive();
    }

    public long Deadline => this.deadline;

    public void OnTime(long now)
    {
        Log.Warn($"control: user {this.peer.User} (process {this.peer.Pid}) stalled for {this.timeout} ms: dropped, nothing changed");
        this.End();
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
            Wire.WritePif(to[at..], entry.Number, entry.Name, entry.Capabilities, rules.Length);
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

    /// <summary>Sends what is still to be sent; false if the client is gone.</summary>
    bool Flush()
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
                this.End();
                return false;
            }
        }

        return true;
    }

    void Watch()
    {
        Events interest = Events.In | Events.ReadHangUp | (this.outputAt < this.outputLength ? Events.Out : Events.None);
        ulong data = new EventKey(this.kind, 0, this.generation).Word;
        Result done = this.watched ? this.loop.Epoll.Change(this.fd, interest, data) : this.loop.Epoll.Watch(this.fd, interest, data);
        this.watched = done.Ok;
        if (!done.Ok)
            this.End();
    }

    void Receive()
    {
        while (this.state is State.AtTable or State.InTable)
        {
            Result received = Sockets.Receive(this.fd, this.input.Pointer + this.inputLength, InputSize - this.inputLength);
            if (received.Ok && received.Value > 0)
            {
                this.inputLength += received.Value;
                this.Parse();
            }
            else if (received.Is(Errno.EAGAIN))
            {
                return;
            }
            else if (!received.Is(Errno.EINTR))
            {
                // A client that only looks hangs up now; so does one whose update breaks off.
                if (this.inputLength > 0 || this.state == State.InTable)
                    Log.Info($"control: user {this.peer.User} (process {this.peer.Pid}): update broke off, nothing changed");
                this.End();
            }
        }
    }

    /// <summary>Takes in what is complete; what is not stays at the beginning of the input.</summary>
    void Parse()
    {
        int at = 0;
        ReadOnlySpan<byte> all = this.input.Span[..this.inputLength];
        while (true)
        {
            ReadOnlySpan<byte> rest = all[at..];
            if (this.state == State.InTable && this.rulesToCome > 0)
            {
                if (rest.Length < Wire.RuleSize)
                    break;
                if (!this.TakeRule(Wire.ReadRule(rest)))
                    return;
                at += Wire.RuleSize;
                this.rulesToCome--;
            }
            else if (rest.Length > 0 && rest[0] == Wire.End)
            {
                this.Apply();
                return;
            }
            else
            {
                this.state = State.AtTable;
                if (rest.Length < Wire.TableSize)
                {
                    if (rest.Length > 0 && !this.IsKnownPif(rest[0]))
                        return;
                    break;
                }

                if (!this.IsKnownPif(rest[0]))
                    return;
                this.pif = this.tables.IndexOf(rest[0]);
                this.rulesToCome = BinaryPrimitives.ReadUInt32BigEndian(rest[1..]);
                if (this.rulesToCome > RuleCheck.MostRules)
                {
                    this.Reject($"table {this.tables.Pifs[this.pif].Name}: {this.rulesToCome} rules, at most {RuleCheck.MostRules} are possible");
                    return;
                }

                at += Wire.TableSize;
                this.state = State.InTable;
            }
        }

        all[at..].CopyTo(this.input.Span);
        this.inputLength -= at;
    }

    bool IsKnownPif(byte number)
    {
        if (this.tables.IndexOf(number) >= 0)
            return true;
        this.Reject($"there is no pif {number}");
        return false;
    }

    bool TakeRule(in Rule rule)
    {
        RuleFault fault = this.tables.AddToShadow(this.pif, in rule, out int conflicting);
        if (fault == RuleFault.None)
            return true;
        int position = this.tables.Rules(this.pif, this.tables.Shadow).Length;
        this.Reject(conflicting < 0
            ? $"{this.tables.Pifs[this.pif].Name} rule {position}: {fault.Text()}"
            : $"{this.tables.Pifs[this.pif].Name} rule {position}: {fault.Text()} (rule {conflicting})");
        return false;
    }

    void Reject(string reason)
    {
        Log.Warn($"control: user {this.peer.User} (process {this.peer.Pid}): update refused, nothing changed: {reason}");
        this.End();
    }

    void Apply()
    {
        int wanted = this.tables.SocketsWanted(this.tables.Shadow);
        if (wanted > this.mostSockets)
        {
            this.Reject($"the tables need {wanted} listening sockets, and {this.mostSockets} are possible under the limit of descriptors");
            return;
        }

        string? loops = this.selfForwarding?.Find(this.tables, this.tables.Shadow);
        if (loops != null)
        {
            this.Reject(loops);
            return;
        }

        this.state = State.Applying;
        this.deadline = long.MaxValue;
        // The client is not listened to meanwhile, and its hanging up is no reason to stop either: the update is complete.
        _ = this.loop.Epoll.Forget(this.fd).Ok;
        this.watched = false;
        this.transaction.Apply(commit: true, this.whenApplied);
    }

    void OnApplied()
    {
        foreach (ref readonly Transaction.Failure failure in this.transaction.Failures)
        {
            Rule* rule = this.tables.Rule(failure.Pif, this.tables.Active, failure.Rule);
            if (!rule->IsWeak)
                Log.Warn($"{BindFailure.Text(in *rule, failure.Port, failure.Error)}");
        }

        Log.Info($"control: user {this.peer.User} (process {this.peer.Pid}) replaced the tables: sockets: {this.transaction.Stolen} kept, {this.transaction.Opened} opened, {this.transaction.Closed} closed, {this.transaction.FailureCount} failed");
        this.End();
    }

    void End()
    {
        // Closing a UNIX socket with bytes unread would reset the client.
        while (Sockets.Receive(this.fd, this.input.Pointer, InputSize) is { Ok: true, Value: > 0 })
        {
        }

        Descriptors.Close(this.fd);
        this.fd = -1;
        this.watched = false;
        this.state = State.Idle;
        this.deadline = long.MaxValue;
        this.Ended?.Invoke();
    }
}
