using System.Diagnostics;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder;

/// <summary>
/// Makes the shadow tables the active ones, a slice at a time between iterations of the loop. Sockets that both want
/// are stolen: they go on as they are. What only the new tables want is opened before the switch; what only the old
/// ones want is parked until the end and then retired: it gets no new connections, those that wait or are just being made
/// are served by their old rule, and only then it is closed. Rolling back is the same in the other direction.
/// </summary>
public sealed unsafe class Transaction : ITimed, IEventHandler
{
    /// <summary>How long a slice may hold up traffic, in nanoseconds.</summary>
    const long SliceBudget = 500_000;

    /// <summary>Sockets that are looked at before the clock is, and how many of them are closed, which takes the kernel longer.</summary>
    const int Stride = 64;
    const int ClosingStride = 8;

    const int MostFailures = 1024;
    const long RetryMilliseconds = 10;

    /// <summary>How long connections that are just being made to a socket get to become complete before it is closed: enough for a lost packet to be sent again.</summary>
    const long SettlingMilliseconds = 2000;

    const long LookAgainMilliseconds = 1;

    // Addresses on which nobody listens: the last but one of the IPv4 loopback's, and one of IPv6's prefix to be discarded.
    static readonly Address Unused4 = Address.FromV4(0x7fff_fffe);
    static readonly Address Unused6 = new(0x0100_0000_0000_0000, 1);

    readonly Loop loop;
    readonly Tables tables;
    readonly Listeners listeners;
    readonly Acceptor acceptor;
    readonly Counters counters;
    readonly SocketSettings settings;
    readonly NativeArray<Failure> failures = new(MostFailures);
    readonly ListenOrder[] orders = new ListenOrder[Side.MostListeners];
    readonly int[] orderedBy = new int[Side.MostListeners];

    Phase phase;
    Action? whenDone;
    long wakeAt = long.MaxValue;
    bool endAtOnce;
    bool isRollback;

    // Where the walk over tables (opening) or sockets (all else) has got to.
    int atPif;
    int atRule;
    int atPort;
    int atSocket;

    // How many sockets are being opened, and for which pif.
    int ordered;
    int orderedFor;

    // A bit for every pif of which TCP sockets are about to be closed, and until when that may be put off.
    int deafened;
    long settleUntil;

    // Of the weak rule whose ports are being opened.
    (int Pif, int Rule, int Count, Errno Error) weakFailures;

    public Transaction(Loop loop, Tables tables, Listeners listeners, Acceptor acceptor, Counters counters, SocketSettings settings)
    {
        this.loop = loop;
        this.tables = tables;
        this.listeners = listeners;
        this.acceptor = acceptor;
        this.counters = counters;
        this.settings = settings;
        loop.AddTimed(this);
        int kind = loop.AddHandler(this);
        foreach (Tables.PifEntry pif in tables.Pifs)
        {
            if (pif.Listens.Answers >= 0)
                loop.Epoll.Watch(pif.Listens.Answers, Events.In, new EventKey(kind, 0, 0).Word).OrThrow("watching for listening sockets");
        }
    }

    enum Phase
    {
        /// <summary>No transaction.</summary>
        None,

        /// <summary>Finding and opening what the shadow tables want.</summary>
        Opening,

        /// <summary>The same for ports that are wanted only while something listens in the target.</summary>
        Scanning,

        /// <summary>The switch is made; sockets begin to be served by their new rules.</summary>
        Arming,

        /// <summary>Applied: waits for commit or rollback.</summary>
        Applied,

        /// <summary>What the active tables do not want gets no new connections any more.</summary>
        Deafening,

        /// <summary>Handshakes that were under way by then come to their end.</summary>
        Settling,

        /// <summary>Closing what the active tables do not want.</summary>
        Retiring,
    }

    /// <summary>A listening socket that a table wants and that could not be opened.</summary>
    public struct Failure
    {
        public int Pif;
        public int Rule;
        public ushort Port;
        public Errno Error;
    }

    public bool IsIdle => this.phase == Phase.None;

    /// <summary>What is wanted is not about to change: no transaction, or one that waits for commit or rollback.</summary>
    public bool IsSettled => this.phase is Phase.None or Phase.Applied;

    /// <summary>Finds the ports that "auto" rules want; null where there can be none.</summary>
    public Scan? Scan { get; set; }

    /// <summary>
    /// How many sockets could not be opened. Those of weak rules don't count, unless such a rule got none at all, which
    /// counts once.
    /// </summary>
    public int FailureCount { get; private set; }

    /// <summary>The first of them, at most 1,024.</summary>
    public ReadOnlySpan<Failure> Failures => this.failures.Span[..Math.Min(this.FailureCount, MostFailures)];

    public int Opened { get; private set; }

    public int Stolen { get; private set; }

    public int Closed { get; private set; }

    /// <summary>Begins to apply the shadow tables. When that is done, the callback comes; then <see cref="Commit"/> or <see cref="Rollback"/> ends it.</summary>
    /// <param name="commit">Commit as soon as it is applied, and call back only when all is over.</param>
    public void Apply(bool commit, Action whenDone)
    {
        Debug.Assert(this.phase == Phase.None, "one transaction at a time");
        this.FailureCount = this.Opened = this.Stolen = this.Closed = 0;
        this.atPif = this.atRule = this.atPort = 0;
        this.weakFailures = default;
        this.endAtOnce = commit;
        this.isRollback = false;
        this.whenDone = whenDone;
        this.Enter(Phase.Opening);
    }

    /// <summary>Ends the transaction with the new tables in force; the callback comes when the old sockets are gone.</summary>
    public void Commit(Action whenDone)
    {
        Debug.Assert(this.phase == Phase.Applied, "nothing to commit");
        this.counters.Commits++;
        this.whenDone = whenDone;
        this.BeginRetiring();
    }

    /// <summary>Ends the transaction with the old tables in force again; the callback comes when the new sockets are gone.</summary>
    public void Rollback(Action whenDone)
    {
        Debug.Assert(this.phase == Phase.Applied, "nothing to roll back");
        this.counters.Rollbacks++;
        this.isRollback = true;
        this.tables.Switch();
        this.whenDone = whenDone;
        this.BeginScan(this.tables.Active);
    }

    void BeginRetiring()
    {
        this.settleUntil = this.loop.Now + SettlingMilliseconds;
        this.deafened = 0;
        this.Enter(Phase.Deafening);
    }

    /// <summary>Carries out a whole commit without a loop: at start-up, when there is no traffic yet.</summary>
    public void RunToEnd()
    {
        while (this.phase != Phase.None)
        {
            if (this.ordered > 0)
                this.TakeOrdered(wait: true);
            this.OnTime(this.loop.Now);
        }
    }

    /// <summary>What was ordered is there.</summary>
    public void OnEvents(EventKey key, Events events)
    {
        if (this.ordered > 0)
            this.wakeAt = 0;
    }

    void Enter(Phase next)
    {
        this.phase = next;
        this.atSocket = 0;
        this.wakeAt = next is Phase.None or Phase.Applied ? long.MaxValue : 0;
    }

    public long Deadline => this.wakeAt;

    public void OnTime(long now)
    {
        long start = Clock.Nanoseconds, at = start;
        this.wakeAt = 0;
        while (this.wakeAt == 0 && at - start < SliceBudget)
        {
            this.Step(now);
            at = Clock.Nanoseconds;
        }

        this.counters.Slices++;
        this.counters.LongestSlice = Math.Max(this.counters.LongestSlice, at - start);
    }

    /// <summary>Does a little of what is to be done next: it takes a fraction of a slice.</summary>
    void Step(long now)
    {
        switch (this.phase)
        {
            case Phase.Opening:
                this.OpenSome();
                break;
            case Phase.Scanning:
                this.ScanSome();
                break;
            case Phase.Arming:
                this.ArmSome();
                break;
            case Phase.Deafening:
                this.DeafenSome();
                break;
            case Phase.Settling:
                this.Settle(now);
                break;
            case Phase.Retiring:
                this.RetireSome(now);
                break;
            case Phase.None:
            case Phase.Applied:
            default:
                this.wakeAt = long.MaxValue;
                break;
        }
    }

    /// <summary>Looks up what the shadow tables want, until as many sockets are missing as are opened at once, or the tables end.</summary>
    void OpenSome()
    {
        if (this.ordered > 0)
        {
            this.TakeOrdered(wait: false);
            return;
        }

        int shadow = this.tables.Shadow;
        int count = 0;
        int looked = 0;
        while (this.atPif < this.tables.Pifs.Length)
        {
            int pif = this.atPif;
            ReadOnlySpan<Rule> rules = this.tables.Rules(pif, shadow);
            if (this.atRule >= rules.Length)
            {
                this.atPif++;
                this.atRule = 0;
                if (count == 0)
                    continue;
                // The sockets of one order are all of one side.
                this.Open(pif, count);
                return;
            }

            // Which of its ports an "auto" rule wants, the scan finds out.
            ref readonly Rule rule = ref rules[this.atRule];
            if (rule.IsScan)
            {
                this.atRule++;
                continue;
            }

            if (this.atPort < rule.First)
                this.atPort = rule.First;
            if (this.atPort > rule.Last)
            {
                this.atRule++;
                this.atPort = 0;
                continue;
            }

            int found = this.listeners.Find(pif, in rule, (ushort)this.atPort);
            if (found >= 0)
            {
                this.listeners[found]->Rule[shadow] = (short)this.atRule;
                this.Stolen++;
            }
            else
            {
                this.orderedBy[count] = this.atRule;
                this.orders[count++] = ListenOrder.For(in rule, (ushort)this.atPort, this.settings);
            }

            this.atPort++;
            if (count == Side.MostListeners || ++looked == Stride)
            {
                this.Open(pif, count);
                return;
            }
        }

        this.BeginScan(shadow);
    }

    void BeginScan(int set)
    {
        this.Enter(Phase.Scanning);
        this.Scan?.Begin(set);
    }

    void ScanSome()
    {
        if (this.Scan is not null)
        {
            if (!this.Scan.Step())
                return;
            this.Stolen += this.Scan.Found;
            this.Opened += this.Scan.Opened;
        }

        // Rolling back has switched already. What was parked is served again now: what happens to the new sockets may take a while.
        if (this.isRollback)
            this.Enter(Phase.Arming);
        else
            this.Switch();
    }

    void Open(int pif, int count)
    {
        if (count == 0)
            return;
        this.ordered = count;
        this.orderedFor = pif;
        this.tables.Pifs[pif].Listens.BeginListen(this.orders.AsSpan(0, count));
        this.TakeOrdered(wait: false);
    }

    /// <summary>Takes over the sockets that were ordered, if they are there; otherwise an event will tell.</summary>
    void TakeOrdered(bool wait)
    {
        int count = this.ordered, pif = this.orderedFor;
        Side side = this.tables.Pifs[pif].Listens;
        if (!side.EndListen(this.orders.AsSpan(0, count), wait))
        {
            // An event tells, unless a flow needs sockets of the same thread meanwhile: then it waits for the thread itself, and takes the event.
            this.wakeAt = this.loop.Now + LookAgainMilliseconds;
            return;
        }

        this.ordered = 0;
        for (int i = 0; i < count; i++)
        {
            ref ListenOrder order = ref this.orders[i];
            int rule = this.orderedBy[i];
            if (order.Outcome.Is(Errno.EADDRINUSE))
                this.TakeOver(side, pif, ref order);
            int index = order.Outcome.Ok ? this.listeners.Add(pif, in order) : -1;
            if (index >= 0)
            {
                this.listeners[index]->Rule[this.tables.Shadow] = (short)rule;
                this.Opened++;
                this.counters.SocketsOpened++;
                // The old rule may be meant by what comes to the new socket already.
                if (order.Handover && this.acceptor.RuleInForce(index) != null)
                    this.acceptor.Arm(index);
                continue;
            }

            if (order.Outcome.Ok)
            {
                Descriptors.Close(order.Outcome.Value);
                order.Outcome = Result.From(Errno.EMFILE);
            }

            this.AddFailure(pif, rule, order.Port, order.Outcome.Error);
        }
    }

    /// <summary>
    /// A port that is taken, perhaps by a socket of ours that the new tables do not want and that overlaps the new one.
    /// Both must listen at the same time: for the moment of the bind both share the port, and no longer, so that nobody
    /// else can.
    /// </summary>
    public void TakeOver(Side side, int pif, ref ListenOrder order)
    {
        int old = 0;
        for (int i = this.listeners.FirstOnPort(pif, order.Protocol, order.Port); i >= 0; i = this.listeners.NextOnPort(i))
        {
            if (Overlap(this.listeners[i], in order) && Sockets.SetReusePort(this.listeners[i]->Fd, true).Ok)
                old++;
        }

        if (old == 0)
            return;
        order.Handover = true;
        side.Listen(new Span<ListenOrder>(ref order));
        if (order.Outcome.Ok)
            _ = Sockets.SetReusePort(order.Outcome.Value, false).Ok;
        for (int i = this.listeners.FirstOnPort(pif, order.Protocol, order.Port); i >= 0; i = this.listeners.NextOnPort(i))
        {
            Listeners.Listener* listener = this.listeners[i];
            if (!Overlap(listener, in order))
                continue;
            _ = Sockets.SetReusePort(listener->Fd, false).Ok;
            listener->Handover |= order.Outcome.Ok;
        }
    }

    /// <summary>
    /// Ends what a handover leaves behind. The kernel remembers of a TCP port that the last socket bound to it shares it, and
    /// asks no further, though none has the option any more: another socket of the same user that wants to share could join
    /// unseen. Any socket bound without the option makes it forget, so one is bound and closed that is in conflict with none
    /// that is there. Next to the wildcards of both families there is no such socket: there other processes of the same user,
    /// and of nobody else, could share the port if they ask for it, until one of the sockets is closed.
    /// </summary>
    void ForgetHandover(int pif, ushort port)
    {
        Span<ListenOrder> orders =
        [
            new() { Address = Unused4, Port = port, Protocol = IpProtocol.Tcp, OnlyBind = true },
            new() { Address = Unused6, Port = port, Protocol = IpProtocol.Tcp, OnlyBind = true, Settings = new(FreeBind: true, Keepalive: 0) },
        ];
        this.tables.Pifs[pif].Listens.Listen(orders);
        bool forgotten = false;
        foreach (ref ListenOrder order in orders)
        {
            if (!order.Outcome.Ok)
                continue;
            Descriptors.Close(order.Outcome.Value);
            forgotten = true;
        }

        // If it is remembered still, the next socket of the port to be closed makes room for another try.
        for (int i = this.listeners.FirstOnPort(pif, IpProtocol.Tcp, port); i >= 0; i = this.listeners.NextOnPort(i))
        {
            if (this.listeners[i]->Rule[this.tables.Active] >= 0)
                this.listeners[i]->Handover = !forgotten;
        }
    }

    bool HadHandover(int pif, IpProtocol protocol, ushort port)
    {
        for (int i = this.listeners.FirstOnPort(pif, protocol, port); i >= 0; i = this.listeners.NextOnPort(i))
        {
            if (this.listeners[i]->Handover)
                return true;
        }

        return false;
    }

    static bool Overlap(Listeners.Listener* listener, in ListenOrder order) =>
        listener->DualStack || order.DualStack || listener->Address == order.Address
        || (listener->Address.IsV4 == order.Address.IsV4 && (listener->Address.IsWildcard || order.Address.IsWildcard));

    void AddFailure(int pif, int rule, ushort port, Errno error)
    {
        this.counters.SocketsFailed++;
        Rule* wanted = this.tables.Rule(pif, this.tables.Shadow, rule);
        if (wanted->IsWeak)
        {
            int before = this.weakFailures.Pif == pif && this.weakFailures.Rule == rule ? this.weakFailures.Count : 0;
            this.weakFailures = (pif, rule, before + 1, error);
            if (before + 1 < wanted->Ports)
                return;
            port = wanted->First;
        }

        if (this.FailureCount < MostFailures)
            this.failures[this.FailureCount] = new() { Pif = pif, Rule = rule, Port = port, Error = error };
        this.FailureCount++;
    }

    void Switch()
    {
        this.tables.Switch();
        this.counters.SocketsStolen += this.Stolen;
        this.Enter(Phase.Arming);
    }

    void ArmSome()
    {
        int end = Math.Min(this.atSocket + Stride, this.listeners.High);
        for (; this.atSocket < end; this.atSocket++)
        {
            if (!this.listeners.Exists(this.atSocket))
                continue;
            if (this.acceptor.RuleInForce(this.atSocket) != null)
                this.acceptor.Arm(this.atSocket);
            if (this.listeners[this.atSocket]->Rule[this.tables.Active] < 0 && !this.isRollback)
                this.counters.SocketsParked++;
        }

        if (this.atSocket < this.listeners.High)
            return;
        if (this.isRollback)
        {
            this.BeginRetiring();
            return;
        }

        if (this.endAtOnce)
        {
            this.counters.Commits++;
            this.BeginRetiring();
            return;
        }

        this.Enter(Phase.Applied);
        this.whenDone?.Invoke();
    }

    void DeafenSome()
    {
        int end = Math.Min(this.atSocket + Stride, this.listeners.High);
        for (; this.atSocket < end; this.atSocket++)
        {
            if (!this.listeners.Exists(this.atSocket) || this.listeners[this.atSocket]->Rule[this.tables.Active] >= 0)
                continue;
            if (this.listeners[this.atSocket]->Protocol != IpProtocol.Tcp)
                continue;
            this.Deafen(this.atSocket);
            this.deafened |= 1 << this.listeners[this.atSocket]->Pif;
        }

        if (this.atSocket < this.listeners.High)
            return;
        this.Enter(this.deafened != 0 ? Phase.Settling : Phase.Retiring);
        // A packet that was being handled on another processor when the socket became deaf gets this time to show as a handshake.
        if (this.deafened != 0)
            this.wakeAt = this.loop.Now + LookAgainMilliseconds;
    }

    void Deafen(int index)
    {
        Listeners.Listener* listener = this.listeners[index];
        this.acceptor.Disarm(index);
        if (listener->Deaf)
            return;
        listener->Deaf = Sockets.Deafen(listener->Fd).Ok;
        // Bound to an interface already, an ordinary user can't bind it to another: then new connections are left to try again,
        // which they do after a second, and datagrams are taken until there is none for the moment.
        if (!listener->Deaf && listener->Protocol == IpProtocol.Tcp)
            listener->Deaf = listener->DeafByDistance = Sockets.DropNewConnections(listener->Fd, listener->Family).Ok;
    }

    /// <summary>Goes on once no handshake is under way with a socket that is about to be closed: closing would reset a client that takes itself for connected.</summary>
    void Settle(long now)
    {
        for (int pif = 0; now < this.settleUntil && pif < this.tables.Pifs.Length; pif++)
        {
            if ((this.deafened & 1 << pif) == 0)
                continue;
            Handshakes handshakes = this.tables.Pifs[pif].Listens.Handshakes;
            for (handshakes.Begin(); handshakes.Next(out ushort port);)
            {
                if (this.HasDeaf(pif, port))
                    this.wakeAt = now + LookAgainMilliseconds;
            }
        }

        if (this.wakeAt == 0)
            this.Enter(Phase.Retiring);
    }

    bool HasDeaf(int pif, ushort port)
    {
        for (int i = this.listeners.FirstOnPort(pif, IpProtocol.Tcp, port); i >= 0; i = this.listeners.NextOnPort(i))
        {
            if (this.listeners[i]->Deaf)
                return true;
        }

        return false;
    }

    void RetireSome(long now)
    {
        int end = Math.Min(this.atSocket + ClosingStride, this.listeners.High);
        for (; this.atSocket < end; this.atSocket++)
        {
            if (!this.listeners.Exists(this.atSocket))
                continue;
            Listeners.Listener* listener = this.listeners[this.atSocket];
            if (listener->Rule[this.tables.Active] >= 0)
            {
                listener->Rule[this.tables.Shadow] = -1;
                this.acceptor.Arm(this.atSocket);
            }
            else
            {
                Acceptor.Accepted left = this.Retire(this.atSocket);
                if (left == Acceptor.Accepted.Full)
                    this.wakeAt = now + RetryMilliseconds;
                if (left != Acceptor.Accepted.All)
                    return;
            }
        }

        if (this.atSocket < this.listeners.High)
            return;
        this.Enter(Phase.None);
        this.whenDone?.Invoke();
    }

    /// <summary>Closes a socket, but first serves what waits on it, a piece at a time: it is closed when the outcome is that all was accepted.</summary>
    public Acceptor.Accepted Retire(int index)
    {
        Listeners.Listener* listener = this.listeners[index];
        this.Deafen(index);
        Rule* rule = this.acceptor.RuleInForce(index);
        if (rule == null && listener->Rule[this.tables.Shadow] >= 0)
            rule = this.tables.Rule(listener->Pif, this.tables.Shadow, listener->Rule[this.tables.Shadow]);
        if (rule != null)
        {
            Acceptor.Accepted left = this.acceptor.Accept(index, rule, Stride, isLast: true);
            // What still gets datagrams may get them for ever.
            if (left == Acceptor.Accepted.Full || (left == Acceptor.Accepted.Some && listener->Deaf))
                return left;
        }

        if (!this.acceptor.Leave(index))
            return Acceptor.Accepted.Some;
        (IpProtocol protocol, int pif, ushort port) = (listener->Protocol, listener->Pif, listener->Port);
        bool handover = this.HadHandover(pif, protocol, port);
        this.listeners.Close(index);
        if (handover && protocol == IpProtocol.Tcp)
            this.ForgetHandover(pif, port);
        this.Closed++;
        this.counters.SocketsClosed++;
        return Acceptor.Accepted.All;
    }
}
