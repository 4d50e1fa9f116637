using System.Diagnostics;
using Pesto.Forwarder.Accepting;
using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Loop;
using Pesto.Forwarder.Namespace;
using Pesto.Forwarder.Reporting;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Commit;

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

    /// <summary>How long connections that wait on a socket get for room to be served before it is closed: then they are reset.</summary>
    const long ServingMilliseconds = 500;

    // Addresses on which nobody listens: the last but one of the IPv4 loopback's, and one of IPv6's prefix to be discarded.
    static readonly Address Unused4 = Address.FromV4(0x7fff_fffe);
    static readonly Address Unused6 = new(0x0100_0000_0000_0000, 1);

    readonly EventLoop _loop;
    readonly Tables _tables;
    readonly Listeners _listeners;
    readonly Acceptor _acceptor;
    readonly Counters _counters;
    readonly SocketSettings _settings;
    readonly NativeArray<Failure> _failures = new(MostFailures);
    readonly ListenRequest[] _orders = new ListenRequest[NetworkNamespace.MostListeners];
    readonly int[] _orderedBy = new int[NetworkNamespace.MostListeners];

    Phase _phase;
    Action? _whenDone;
    long _wakeAt = long.MaxValue;
    bool _endAtOnce;
    bool _isRollback;

    // Where the walk over tables (opening) or sockets (all else) has got to.
    int _atPif;
    int _atRule;
    int _atPort;
    int _atSocket;

    // How many sockets are being opened, and for which pif.
    int _ordered;
    int _orderedFor;

    // A bit for every pif of which TCP sockets are about to be closed, and until when that may be put off.
    int _deafened;
    long _settleUntil;

    // Of the weak rule whose ports are being opened.
    (int Pif, int Rule, int Count, Errno Error) _weakFailures;

    public Transaction(EventLoop loop, Tables tables, Listeners listeners, Acceptor acceptor, Counters counters, SocketSettings settings)
    {
        _loop = loop;
        _tables = tables;
        _listeners = listeners;
        _acceptor = acceptor;
        _counters = counters;
        _settings = settings;
        int kind = loop.AddHandler(this);
        foreach (Tables.PifEntry pif in tables.Pifs)
        {
            if (pif.Listens.Answers >= 0)
                loop.Epoll.Add(pif.Listens.Answers, Events.In, new EventKey(kind, 0, 0).Word).OrThrow("watching for listening sockets");
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

    public bool IsIdle => _phase == Phase.None;

    /// <summary>What is wanted is not about to change: no transaction, or one that waits for commit or rollback.</summary>
    public bool IsSettled => _phase is Phase.None or Phase.Applied;

    /// <summary>Finds the ports that "auto" rules want; null where there can be none.</summary>
    public Scan? Scan { get; set; }

    /// <summary>
    /// How many sockets could not be opened. Those of weak rules don't count, unless such a rule got none at all, which
    /// counts once.
    /// </summary>
    public int FailureCount { get; private set; }

    /// <summary>The first of them, at most 1,024.</summary>
    public ReadOnlySpan<Failure> Failures => _failures.Span[..Math.Min(FailureCount, MostFailures)];

    public int Opened { get; private set; }

    public int Stolen { get; private set; }

    public int Closed { get; private set; }

    /// <summary>Begins to apply the shadow tables. When that is done, the callback comes; then <see cref="Commit"/> or <see cref="Rollback"/> ends it.</summary>
    /// <param name="commit">Commit as soon as it is applied, and call back only when all is over.</param>
    public void Apply(bool commit, Action whenDone)
    {
        Debug.Assert(_phase == Phase.None, "one transaction at a time");
        FailureCount = Opened = Stolen = Closed = 0;
        _atPif = _atRule = _atPort = 0;
        _weakFailures = default;
        _endAtOnce = commit;
        _isRollback = false;
        _whenDone = whenDone;
        Enter(Phase.Opening);
    }

    /// <summary>Ends the transaction with the new tables in force; the callback comes when the old sockets are gone.</summary>
    public void Commit(Action whenDone)
    {
        Debug.Assert(_phase == Phase.Applied, "nothing to commit");
        _counters.Commits++;
        _whenDone = whenDone;
        BeginRetiring();
    }

    /// <summary>Ends the transaction with the old tables in force again; the callback comes when the new sockets are gone.</summary>
    public void Rollback(Action whenDone)
    {
        Debug.Assert(_phase == Phase.Applied, "nothing to roll back");
        _counters.Rollbacks++;
        _isRollback = true;
        _tables.Switch();
        _whenDone = whenDone;
        BeginScan(_tables.Active);
    }

    void BeginRetiring()
    {
        _settleUntil = _loop.Now + SettlingMilliseconds;
        _deafened = 0;
        Enter(Phase.Deafening);
    }

    /// <summary>Carries out a whole commit without a loop: at start-up, when there is no traffic yet.</summary>
    public void RunToEnd()
    {
        while (_phase != Phase.None)
        {
            if (_ordered > 0)
                TakeOrdered(wait: true);
            OnTime(_loop.Now);
        }
    }

    /// <summary>What was ordered is there.</summary>
    public void OnEvents(EventKey key, Events events)
    {
        if (_ordered > 0)
            _wakeAt = 0;
    }

    void Enter(Phase next)
    {
        _phase = next;
        _atSocket = 0;
        _wakeAt = next is Phase.None or Phase.Applied ? long.MaxValue : 0;
    }

    public long Deadline => _wakeAt;

    public void OnTime(long now)
    {
        long start = Clock.Nanoseconds, at = start;
        _wakeAt = 0;
        while (_wakeAt == 0 && at - start < SliceBudget)
        {
            Step(now);
            at = Clock.Nanoseconds;
        }

        _counters.Slices++;
        _counters.LongestSlice = Math.Max(_counters.LongestSlice, at - start);
    }

    /// <summary>Does a little of what is to be done next: it takes a fraction of a slice.</summary>
    void Step(long now)
    {
        switch (_phase)
        {
            case Phase.Opening:
                OpenSome();
                break;
            case Phase.Scanning:
                ScanSome();
                break;
            case Phase.Arming:
                ArmSome();
                break;
            case Phase.Deafening:
                DeafenSome();
                break;
            case Phase.Settling:
                Settle(now);
                break;
            case Phase.Retiring:
                RetireSome(now);
                break;
            case Phase.None:
            case Phase.Applied:
            default:
                _wakeAt = long.MaxValue;
                break;
        }
    }

    /// <summary>Looks up what the shadow tables want, until as many sockets are missing as are opened at once, or the tables end.</summary>
    void OpenSome()
    {
        if (_ordered > 0)
        {
            TakeOrdered(wait: false);
            return;
        }

        int shadow = _tables.Shadow;
        int count = 0;
        int looked = 0;
        while (_atPif < _tables.Pifs.Length)
        {
            int pif = _atPif;
            ReadOnlySpan<Rule> rules = _tables.Rules(pif, shadow);
            if (_atRule >= rules.Length)
            {
                _atPif++;
                _atRule = 0;
                if (count == 0)
                    continue;
                // The sockets of one order are all of one side.
                Open(pif, count);
                return;
            }

            // Which of its ports an "auto" rule wants, the scan finds out.
            ref readonly Rule rule = ref rules[_atRule];
            if (rule.IsScan)
            {
                _atRule++;
                continue;
            }

            if (_atPort < rule.First)
                _atPort = rule.First;
            if (_atPort > rule.Last)
            {
                _atRule++;
                _atPort = 0;
                continue;
            }

            ListenAddress local = rule.At((ushort)_atPort);
            int found = _listeners.Find(pif, in local);
            if (found >= 0)
            {
                _listeners[found]->Rule[shadow] = (short)_atRule;
                Stolen++;
            }
            else
            {
                _orderedBy[count] = _atRule;
                _orders[count++] = new() { Local = local, Settings = _settings };
            }

            _atPort++;
            if (count == NetworkNamespace.MostListeners || ++looked == Stride)
            {
                Open(pif, count);
                return;
            }
        }

        BeginScan(shadow);
    }

    void BeginScan(int set)
    {
        Enter(Phase.Scanning);
        Scan?.Begin(set);
    }

    void ScanSome()
    {
        if (Scan is not null)
        {
            if (!Scan.Step())
                return;
            Stolen += Scan.Found;
            Opened += Scan.Opened;
        }

        // Rolling back has switched already. What was parked is served again now: what happens to the new sockets may take a while.
        if (_isRollback)
            Enter(Phase.Arming);
        else
            Switch();
    }

    void Open(int pif, int count)
    {
        if (count == 0)
            return;
        _ordered = count;
        _orderedFor = pif;
        _tables.Pifs[pif].Listens.BeginListen(_orders.AsSpan(0, count));
        TakeOrdered(wait: false);
    }

    /// <summary>Takes over the sockets that were ordered, if they are there; otherwise an event will tell.</summary>
    void TakeOrdered(bool wait)
    {
        int count = _ordered, pif = _orderedFor;
        NetworkNamespace side = _tables.Pifs[pif].Listens;
        if (!side.EndListen(_orders.AsSpan(0, count), wait))
        {
            // An event tells, unless a flow needs sockets of the same thread meanwhile: then it waits for the thread itself, and takes the event.
            _wakeAt = _loop.Now + LookAgainMilliseconds;
            return;
        }

        _ordered = 0;
        for (int i = 0; i < count; i++)
        {
            ref ListenRequest order = ref _orders[i];
            int rule = _orderedBy[i];
            if (order.Outcome.Is(Errno.EADDRINUSE))
                TakeOver(side, pif, ref order);
            int index = order.Outcome.Ok ? _listeners.Add(pif, in order, DescriptorUse.ListeningExplicit) : -1;
            if (index >= 0)
            {
                _listeners[index]->Rule[_tables.Shadow] = (short)rule;
                Opened++;
                _counters.SocketsOpened++;
                // The old rule may be meant by what comes to the new socket already.
                if (order.Handover && _acceptor.RuleInForce(index) != null)
                    _acceptor.Arm(index);
                continue;
            }

            if (order.Outcome.Ok)
            {
                Descriptors.Close(order.Outcome.Value);
                order.Outcome = Result.From(Errno.EMFILE);
            }

            AddFailure(pif, rule, order.Local.Port, order.Outcome.Error);
        }
    }

    /// <summary>
    /// A port that is taken, perhaps by a socket of ours that the new tables do not want and that overlaps the new one.
    /// Both must listen at the same time: for the moment of the bind both share the port, and no longer, so that nobody
    /// else can.
    /// </summary>
    public void TakeOver(NetworkNamespace side, int pif, ref ListenRequest order)
    {
        int old = 0;
        for (int i = _listeners.FirstOnPort(pif, order.Local.Protocol, order.Local.Port); i >= 0; i = _listeners.NextOnPort(i))
        {
            if (_listeners[i]->Local.Overlaps(in order.Local) && Sockets.SetReusePort(_listeners[i]->Fd, true).Ok)
                old++;
        }

        if (old == 0)
            return;
        order.Handover = true;
        side.Listen(new Span<ListenRequest>(ref order));
        if (order.Outcome.Ok)
            _ = Sockets.SetReusePort(order.Outcome.Value, false).Ok;
        for (int i = _listeners.FirstOnPort(pif, order.Local.Protocol, order.Local.Port); i >= 0; i = _listeners.NextOnPort(i))
        {
            Listeners.Listener* listener = _listeners[i];
            if (!listener->Local.Overlaps(in order.Local))
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
        Span<ListenRequest> orders =
        [
            new() { Local = new(IpProtocol.Tcp, Unused4, IsDualStack: false, default, port), OnlyBind = true },
            new() { Local = new(IpProtocol.Tcp, Unused6, IsDualStack: false, default, port), OnlyBind = true, Settings = new(FreeBind: true, Keepalive: 0) },
        ];
        _tables.Pifs[pif].Listens.Listen(orders);
        bool forgotten = false;
        foreach (ref ListenRequest order in orders)
        {
            if (!order.Outcome.Ok)
                continue;
            Descriptors.Close(order.Outcome.Value);
            forgotten = true;
        }

        // If it is remembered still, the next socket of the port to be closed makes room for another try.
        for (int i = _listeners.FirstOnPort(pif, IpProtocol.Tcp, port); i >= 0; i = _listeners.NextOnPort(i))
        {
            if (_listeners[i]->Rule[_tables.Active] >= 0)
                _listeners[i]->Handover = !forgotten;
        }
    }

    bool HadHandover(int pif, IpProtocol protocol, ushort port)
    {
        for (int i = _listeners.FirstOnPort(pif, protocol, port); i >= 0; i = _listeners.NextOnPort(i))
        {
            if (_listeners[i]->Handover)
                return true;
        }

        return false;
    }

    void AddFailure(int pif, int rule, ushort port, Errno error)
    {
        _counters.SocketsFailed++;
        Rule* wanted = _tables.Rule(pif, _tables.Shadow, rule);
        if (wanted->IsWeak)
        {
            int before = _weakFailures.Pif == pif && _weakFailures.Rule == rule ? _weakFailures.Count : 0;
            _weakFailures = (pif, rule, before + 1, error);
            if (before + 1 < wanted->Ports)
                return;
            port = wanted->First;
        }

        if (FailureCount < MostFailures)
            _failures[FailureCount] = new() { Pif = pif, Rule = rule, Port = port, Error = error };
        FailureCount++;
    }

    void Switch()
    {
        _tables.Switch();
        _counters.SocketsStolen += Stolen;
        Enter(Phase.Arming);
    }

    void ArmSome()
    {
        int end = Math.Min(_atSocket + Stride, _listeners.High);
        for (; _atSocket < end; _atSocket++)
        {
            if (!_listeners.Exists(_atSocket))
                continue;
            if (_acceptor.RuleInForce(_atSocket) != null)
                _acceptor.Arm(_atSocket);
            if (_listeners[_atSocket]->Rule[_tables.Active] < 0 && !_isRollback)
                _counters.SocketsParked++;
        }

        if (_atSocket < _listeners.High)
            return;
        if (_isRollback)
        {
            BeginRetiring();
            return;
        }

        if (_endAtOnce)
        {
            _counters.Commits++;
            BeginRetiring();
            return;
        }

        Enter(Phase.Applied);
        _whenDone?.Invoke();
    }

    void DeafenSome()
    {
        int end = Math.Min(_atSocket + Stride, _listeners.High);
        for (; _atSocket < end; _atSocket++)
        {
            if (!_listeners.Exists(_atSocket) || _listeners[_atSocket]->Rule[_tables.Active] >= 0)
                continue;
            if (_listeners[_atSocket]->Local.Protocol != IpProtocol.Tcp)
                continue;
            Deafen(_atSocket);
            _deafened |= 1 << _listeners[_atSocket]->Pif;
        }

        if (_atSocket < _listeners.High)
            return;
        Enter(_deafened != 0 ? Phase.Settling : Phase.Retiring);
        // A packet that was being handled on another processor when the socket became deaf gets this time to show as a handshake.
        if (_deafened != 0)
            _wakeAt = _loop.Now + LookAgainMilliseconds;
    }

    void Deafen(int index)
    {
        Listeners.Listener* listener = _listeners[index];
        _acceptor.Disarm(index);
        if (listener->Quiesced)
            return;
        listener->ServedUntil = _loop.Now + ServingMilliseconds;
        listener->Quiesced = Sockets.Quiesce(listener->Fd).Ok;
        // Bound to an interface already, an ordinary user can't bind it to another: then new connections are left to try again,
        // which they do after a second, and datagrams are taken until there is none for the moment.
        if (!listener->Quiesced && listener->Local.Protocol == IpProtocol.Tcp)
            listener->Quiesced = listener->QuiescedByHops = Sockets.DropNewConnections(listener->Fd, listener->Local.Family).Ok;
    }

    /// <summary>Goes on once no handshake is under way with a socket that is about to be closed: closing would reset a client that takes itself for connected.</summary>
    void Settle(long now)
    {
        for (int pif = 0; now < _settleUntil && pif < _tables.Pifs.Length; pif++)
        {
            if ((_deafened & 1 << pif) == 0)
                continue;
            Handshakes handshakes = _tables.Pifs[pif].Listens.Handshakes;
            for (handshakes.Begin(); handshakes.Next(out ushort port);)
            {
                if (HasDeaf(pif, port))
                    _wakeAt = now + LookAgainMilliseconds;
            }
        }

        if (_wakeAt == 0)
            Enter(Phase.Retiring);
    }

    bool HasDeaf(int pif, ushort port)
    {
        for (int i = _listeners.FirstOnPort(pif, IpProtocol.Tcp, port); i >= 0; i = _listeners.NextOnPort(i))
        {
            if (_listeners[i]->Quiesced)
                return true;
        }

        return false;
    }

    void RetireSome(long now)
    {
        int end = Math.Min(_atSocket + ClosingStride, _listeners.High);
        for (; _atSocket < end; _atSocket++)
        {
            if (!_listeners.Exists(_atSocket))
                continue;
            Listeners.Listener* listener = _listeners[_atSocket];
            if (listener->Rule[_tables.Active] >= 0)
            {
                listener->Rule[_tables.Shadow] = -1;
                _acceptor.Arm(_atSocket);
            }
            else
            {
                Acceptor.Accepted left = Retire(_atSocket);
                if (left == Acceptor.Accepted.Full)
                    _wakeAt = now + RetryMilliseconds;
                if (left != Acceptor.Accepted.All)
                    return;
            }
        }

        if (_atSocket < _listeners.High)
            return;
        Enter(Phase.None);
        _whenDone?.Invoke();
    }

    /// <summary>Closes a socket, but first serves what waits on it, a piece at a time: it is closed when the outcome is that all was accepted.</summary>
    public Acceptor.Accepted Retire(int index)
    {
        Listeners.Listener* listener = _listeners[index];
        Deafen(index);
        Rule* rule = _acceptor.RuleInForce(index);
        if (rule == null && listener->Rule[_tables.Shadow] >= 0)
            rule = _tables.Rule(listener->Pif, _tables.Shadow, listener->Rule[_tables.Shadow]);
        if (rule != null)
        {
            Acceptor.Accepted left = _acceptor.Accept(index, rule, Stride, isLast: true);
            if (left == Acceptor.Accepted.Full && _loop.Now >= listener->ServedUntil)
            {
                _acceptor.CountReset(index);
                left = Acceptor.Accepted.All;
            }

            // What still gets datagrams may get them for ever.
            if (left == Acceptor.Accepted.Full || (left == Acceptor.Accepted.Some && listener->Quiesced))
                return left;
        }

        if (!_acceptor.Leave(index))
            return Acceptor.Accepted.Some;
        (IpProtocol protocol, int pif, ushort port) = (listener->Local.Protocol, listener->Pif, listener->Local.Port);
        bool handover = HadHandover(pif, protocol, port);
        _listeners.Close(index);
        if (handover && protocol == IpProtocol.Tcp)
            ForgetHandover(pif, port);
        Closed++;
        _counters.SocketsClosed++;
        return Acceptor.Accepted.All;
    }
}
