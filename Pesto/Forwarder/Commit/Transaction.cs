using Pesto.Forwarder.Accepting;
using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Loop;
using Pesto.Forwarder.Reporting;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Commit;

/// <summary>
/// Makes the shadow tables the active ones, a slice at a time between iterations of the loop. Sockets that both want
/// are stolen: they go on as they are. What only the new tables want is opened before the switch; what only the old
/// ones want is parked until the end and then closed: it gets no new connections, those that wait or are just being made
/// are served by their old rule, and only then it goes. Rolling back is the same in the other direction.
/// <code>
///             Apply             switch                           Commit
///      Idle --------> Opening --------+                    +----------------------+
///       ^                |            |                    |                      |
///       |            AddingAuto ------+--> Arming ----> Applied                   |
///       |                ^                 |    |          |                      |
///       |                +-----------------|----|----------+                      |
///       |                  switch back     |    |       Rollback                  |
///       |                                  |    +-----------------------------+   |
///       |                                  |      commit at once, rolled back |   |
///       |                                  v                                  v   v
///       +------ Closing &lt;---- DrainingHandshakes &lt;----------------------- Quiescing
/// </code>
/// </summary>
public sealed unsafe class Transaction : ITimed, IEventHandler
{
    /// <summary>How long a slice may hold up traffic, in nanoseconds.</summary>
    const long SliceBudget = 500_000;

    /// <summary>Sockets that are looked at before the clock is, and how many of them are closed, which takes the kernel longer.</summary>
    const int Stride = 64;
    const int ClosingStride = 8;

    const long RetryMilliseconds = 10;
    const long LookAgainMilliseconds = 1;

    readonly EventLoop _loop;
    readonly Tables _tables;
    readonly Listeners _listeners;
    readonly Acceptor _acceptor;
    readonly ListenerOpener _opener;
    readonly ListenerCloser _closer;
    readonly HandshakeDrain _handshakes;
    readonly AutoForward? _auto;
    readonly Counters _counters;
    readonly ListenFailures _failures;

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

    /// <param name="auto">Finds the ports that "auto" rules want; null where there can be none.</param>
    public Transaction(
        EventLoop loop, Tables tables, Listeners listeners, Acceptor acceptor, ListenerOpener opener, ListenerCloser closer, AutoForward? auto, Counters counters)
    {
        _loop = loop;
        _tables = tables;
        _listeners = listeners;
        _acceptor = acceptor;
        _opener = opener;
        _closer = closer;
        _handshakes = new(tables, listeners);
        _auto = auto;
        _counters = counters;
        _failures = new(tables);
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
        Idle,

        /// <summary>Finding and opening what the shadow tables want.</summary>
        Opening,

        /// <summary>The same for ports that are wanted only while something listens in the target.</summary>
        AddingAuto,

        /// <summary>The switch is made; sockets begin to be served by their new rules.</summary>
        Arming,

        /// <summary>Waits for commit or rollback.</summary>
        Applied,

        /// <summary>What the active tables do not want gets no new connections any more.</summary>
        Quiescing,

        /// <summary>Handshakes that were under way by then come to their end.</summary>
        DrainingHandshakes,

        /// <summary>Serving what is queued on sockets that the active tables do not want, and closing them.</summary>
        Closing,
    }

    public bool IsIdle => _phase == Phase.Idle;

    /// <summary>What is wanted is not about to change: no transaction, or one that waits for commit or rollback.</summary>
    public bool IsSettled => _phase is Phase.Idle or Phase.Applied;

    /// <summary>How many sockets could not be opened; see <see cref="ListenFailures"/>.</summary>
    public int FailureCount => _failures.Count;

    /// <summary>The first of them.</summary>
    public ReadOnlySpan<ListenFailure> Failures => _failures.First;

    public int Opened { get; private set; }

    public int Stolen { get; private set; }

    public int Closed { get; private set; }

    /// <summary>Begins to apply the shadow tables. When that is done, the callback comes; then <see cref="Commit"/> or <see cref="Rollback"/> ends it.</summary>
    /// <param name="commit">Commit as soon as it is applied, and call back only when all is over.</param>
    public void Apply(bool commit, Action whenDone)
    {
        Check.That(_phase == Phase.Idle, "one transaction at a time");
        Opened = Stolen = Closed = 0;
        _failures.Clear();
        _atPif = _atRule = _atPort = 0;
        _endAtOnce = commit;
        _isRollback = false;
        _whenDone = whenDone;
        // While it changes what is wanted, services are looked for as part of it.
        _auto?.Suspend();
        Enter(Phase.Opening);
    }

    /// <summary>Ends the transaction with the new tables in force; the callback comes when the old sockets are gone.</summary>
    public void Commit(Action whenDone)
    {
        Check.That(_phase == Phase.Applied, "nothing to commit");
        _counters.Commits++;
        _whenDone = whenDone;
        BeginClosing();
    }

    /// <summary>Ends the transaction with the old tables in force again; the callback comes when the new sockets are gone.</summary>
    public void Rollback(Action whenDone)
    {
        Check.That(_phase == Phase.Applied, "nothing to roll back");
        _counters.Rollbacks++;
        _isRollback = true;
        _auto?.Suspend();
        _tables.Switch();
        _whenDone = whenDone;
        BeginAuto(_tables.Active);
    }

    void BeginClosing()
    {
        _auto?.Suspend();
        _handshakes.Clear();
        Enter(Phase.Quiescing);
    }

    /// <summary>Carries out a whole commit without a loop: at start-up, when there is no traffic yet.</summary>
    public void RunToEnd()
    {
        while (_phase != Phase.Idle)
        {
            if (_opener.IsUnderWay)
                TakeOpened(wait: true);
            OnTime(_loop.Now);
        }
    }

    /// <summary>What was to be opened is there.</summary>
    public void OnEvents(EventKey key, Events events)
    {
        if (_opener.IsUnderWay)
            _wakeAt = 0;
    }

    void Enter(Phase next)
    {
        _phase = next;
        _atSocket = 0;
        _wakeAt = next is Phase.Idle or Phase.Applied ? long.MaxValue : 0;
    }

    void End(Phase next)
    {
        Enter(next);
        _auto?.Resume();
        _whenDone?.Invoke();
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
            case Phase.AddingAuto:
                AddSomeAuto();
                break;
            case Phase.Arming:
                ArmSome();
                break;
            case Phase.Quiescing:
                QuiesceSome(now);
                break;
            case Phase.DrainingHandshakes:
                if (_handshakes.Step(now))
                    Enter(Phase.Closing);
                else
                    _wakeAt = _handshakes.Deadline;
                break;
            case Phase.Closing:
                CloseSome(now);
                break;
            case Phase.Idle:
            case Phase.Applied:
            default:
                _wakeAt = long.MaxValue;
                break;
        }
    }

    /// <summary>Looks up what the shadow tables want, until as many sockets are missing as are opened at once, or the tables end.</summary>
    void OpenSome()
    {
        if (_opener.IsUnderWay)
        {
            TakeOpened(wait: false);
            return;
        }

        int shadow = _tables.Shadow;
        int looked = 0;
        while (_atPif < _tables.Pifs.Length)
        {
            int pif = _atPif;
            ReadOnlySpan<Rule> rules = _tables.Rules(pif, shadow);
            if (_atRule >= rules.Length)
            {
                _atPif++;
                _atRule = 0;
                if (_opener.IsEmpty)
                    continue;
                // The sockets of one batch are all of one pif.
                Open();
                return;
            }

            // Which of its ports an "auto" rule wants is found out in the next phase.
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
                _opener.Add(pif, _atRule, in local, DescriptorUse.ListeningExplicit);
            }

            _atPort++;
            if (_opener.IsFull || ++looked == Stride)
            {
                Open();
                return;
            }
        }

        BeginAuto(shadow);
    }

    void Open()
    {
        if (_opener.IsEmpty)
            return;
        _opener.Begin();
        TakeOpened(wait: false);
    }

    /// <summary>Takes over the sockets that were opened, if they are there; otherwise an event will tell.</summary>
    void TakeOpened(bool wait)
    {
        if (!_opener.End(wait))
        {
            // An event tells, unless a flow needs sockets of the same thread meanwhile: then it waits for the thread itself, and takes the event.
            _wakeAt = _loop.Now + LookAgainMilliseconds;
            return;
        }

        foreach (ref readonly ListenerOpener.Wanted wanted in _opener.Results)
        {
            if (wanted.Index < 0)
            {
                _counters.SocketsFailed++;
                _failures.Add(_opener.Pif, wanted.Rule, wanted.Local.Port, wanted.Error);
                continue;
            }

            Listeners.Listener* listener = _listeners[wanted.Index];
            listener->Rule[_tables.Shadow] = (short)wanted.Rule;
            Opened++;
            // The old rule may be meant by what comes to the new socket already.
            if (listener->Handover && _acceptor.RuleInForce(wanted.Index) != null)
                _acceptor.Arm(wanted.Index);
        }

        _opener.Clear();
    }

    void BeginAuto(int set)
    {
        Enter(Phase.AddingAuto);
        _auto?.Begin(set);
    }

    void AddSomeAuto()
    {
        if (_auto is not null)
        {
            if (!_auto.Step())
                return;
            Stolen += _auto.Found;
            Opened += _auto.Opened;
        }

        // Rolling back has switched already. What was parked is served again now: what happens to the new sockets may take a while.
        if (!_isRollback)
        {
            _tables.Switch();
            _counters.SocketsStolen += Stolen;
        }

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
        if (!_isRollback && !_endAtOnce)
        {
            End(Phase.Applied);
            return;
        }

        if (!_isRollback)
            _counters.Commits++;
        BeginClosing();
    }

    void QuiesceSome(long now)
    {
        int end = Math.Min(_atSocket + Stride, _listeners.High);
        for (; _atSocket < end; _atSocket++)
        {
            if (!_listeners.Exists(_atSocket) || _listeners[_atSocket]->Rule[_tables.Active] >= 0 || _listeners[_atSocket]->Local.Protocol != IpProtocol.Tcp)
                continue;
            _closer.Quiesce(_atSocket);
            _handshakes.Add(_listeners[_atSocket]->Pif);
        }

        if (_atSocket < _listeners.High)
            return;
        Enter(_handshakes.IsNeeded ? Phase.DrainingHandshakes : Phase.Closing);
        if (!_handshakes.IsNeeded)
            return;
        _handshakes.Begin(now);
        _wakeAt = _handshakes.Deadline;
    }

    void CloseSome(long now)
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
                continue;
            }

            Acceptor.Accepted left = _closer.Close(_atSocket);
            if (left == Acceptor.Accepted.Full)
                _wakeAt = now + RetryMilliseconds;
            if (left != Acceptor.Accepted.All)
                return;
            Closed++;
        }

        if (_atSocket < _listeners.High)
            return;
        End(Phase.Idle);
    }
}
