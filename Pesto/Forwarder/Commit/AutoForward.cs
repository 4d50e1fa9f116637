using Pesto.Forwarder.Accepting;
using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Loop;
using Pesto.Forwarder.Namespace;
using Pesto.Forwarder.Reporting;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Commit;

/// <summary>
/// Opens the ports of "auto" rules on which something listens in the target, and closes them when nothing does any more:
/// twice a second, and within each transaction, so that what listens is reachable when that ends.
/// What the forwarder itself listens on counts for nothing: otherwise each direction would forward to the other.
/// </summary>
/// <remarks>
/// A list of sockets that is read in parts can miss one, and one that breaks off misses all that would follow. So a scan only adds, in a
/// transaction as outside: a socket that is open stays open until two scans in a row that were complete have not found its service.
/// </remarks>
public sealed unsafe class AutoForward : ITimed
{
    const long Interval = 500;

    /// <summary>TCP and UDP, of IPv4 and IPv6 each.</summary>
    const int ListsOfPif = 4;

    /// <summary>Sockets, of the target or our own, that are looked at before traffic has its turn; and those that are closed.</summary>
    const int Stride = 64;
    const int ClosingStride = 16;

    /// <summary>Complete scans that don't find the service of a socket until that is closed.</summary>
    const uint RoundsToStay = 2;

    readonly EventLoop _loop;
    readonly Tables _tables;
    readonly Listeners _listeners;
    readonly Acceptor _acceptor;
    readonly ListenerOpener _opener;
    readonly ListenerCloser _closer;
    readonly Targets _targets;
    readonly Counters _counters;
    readonly ISocketList?[] _lists = new ISocketList?[Tables.PifCount];

    // One bit for each pif, protocol and port that could not be opened, and of which it was said.
    readonly NativeArray<ulong> _failed = new(Tables.PifCount * 2 * 65536 / 64);

    long _nextAt = long.MaxValue;
    Work _work;
    bool _isSuspended;

    // The last scan read all lists to their ends; and so far, this one did.
    bool _isComplete;
    bool _isWhole;

    bool _anyWanted;
    uint _round;

    // Where the scan has got to: which of a pif's lists (TCP and UDP of either family) is being read.
    int _atPif;
    int _atList;
    bool _reading;

    // Which listening socket is looked at next.
    int _atSocket;

    public AutoForward(
        EventLoop loop, Tables tables, Listeners listeners, Acceptor acceptor, ListenerOpener opener, ListenerCloser closer, Targets targets, Counters counters)
    {
        _loop = loop;
        _tables = tables;
        _listeners = listeners;
        _acceptor = acceptor;
        _opener = opener;
        _closer = closer;
        _targets = targets;
        _counters = counters;
    }

    enum Work
    {
        None,

        /// <summary>Finding sockets that are open and that the rules cover.</summary>
        Keeping,

        /// <summary>Reading the lists of the target's sockets and opening what is missing.</summary>
        Adding,

        /// <summary>Closing sockets whose service is gone.</summary>
        Closing,
    }

    /// <summary>The set of tables whose rules are being scanned for.</summary>
    public int Set { get; private set; }

    /// <summary>Of this scan: wanted sockets that were there already.</summary>
    public int Found { get; private set; }

    public int Opened { get; private set; }

    public long Deadline => _isSuspended ? long.MaxValue : _work != Work.None ? 0 : _nextAt;

    /// <summary>A transaction changes what is wanted, and calls <see cref="Begin(int)"/> and <see cref="Step"/> by itself.</summary>
    public void Suspend() => _isSuspended = true;

    /// <summary>What is wanted is settled again.</summary>
    public void Resume() => _isSuspended = false;

    public void OnTime(long now)
    {
        if (_work == Work.None)
            Begin(_tables.Active, Work.Adding);
        if (_work == Work.Closing)
            CloseSome();
        else if (Step() && _isComplete)
            (_work, _atSocket) = (Work.Closing, 0);
    }

    /// <summary>Begins to open what the "auto" rules of a set of tables want; a scan that was under way is given up.</summary>
    public void Begin(int set) => Begin(set, Work.Keeping);

    void Begin(int set, Work first)
    {
        // One that was given up, or that could not read all lists, says nothing about what is gone.
        if (_isComplete)
            _round++;
        Set = set;
        Found = Opened = 0;
        _atPif = _atSocket = 0;
        _atList = -1;
        _reading = _anyWanted = false;
        _isComplete = false;
        _isWhole = true;
        foreach (Tables.PifEntry pif in _tables.Pifs)
            pif.LoopbackServices?.Begin();
        _work = first;
    }

    /// <summary>Goes on for a bounded time; true at the end of the scan.</summary>
    public bool Step()
    {
        if (_work == Work.Keeping)
        {
            KeepSome();
            return false;
        }

        for (int looked = 0; looked < Stride; looked++)
        {
            if (!_reading && !BeginNextList())
            {
                _work = Work.None;
                _isComplete = _isWhole;
                if (_isComplete)
                    NoteComplete();
                _counters.Scans++;
                _nextAt = _anyWanted ? _loop.Now + Interval : long.MaxValue;
                return true;
            }

            Result next = _lists[_atPif]!.Next(out BoundSocket socket);
            if (next.Is(Errno.EAGAIN))
                break;
            if (next is { Ok: true, Value: > 0 })
            {
                Consider(in socket);
                continue;
            }

            _isWhole &= next.Ok;
            _reading = false;
            Open();
        }

        Open();
        return false;
    }

    void NoteComplete()
    {
        foreach (Tables.PifEntry pif in _tables.Pifs)
            pif.LoopbackServices?.Complete();
    }

    /// <summary>Sockets that the new tables cover stay open, whatever rule has wanted them. Rolled back, those of the old tables have their rule still.</summary>
    void KeepSome()
    {
        int end = Math.Min(_atSocket + Stride, _listeners.High);
        for (; _atSocket < end; _atSocket++)
        {
            if (!_listeners.Exists(_atSocket) || _listeners[_atSocket]->Quiesced || !_listeners.HasInterface(_atSocket))
                continue;
            if (_listeners[_atSocket]->Rule[Set] >= 0)
                _listeners[_atSocket]->Seen = _round;
            else if (Set == _tables.Shadow && Covering(_atSocket) is >= 0 and int rule && Keep(_atSocket, rule))
                Found++;
        }

        if (_atSocket >= _listeners.High)
            _work = Work.Adding;
    }

    /// <summary>The "auto" rule that wants just this socket if there is a service, or -1.</summary>
    int Covering(int index)
    {
        Listeners.Listener* listener = _listeners[index];
        ReadOnlySpan<Rule> rules = _tables.Rules(listener->Pif, Set);
        for (int i = 0; i < rules.Length; i++)
        {
            if (rules[i].IsScan && rules[i].Covers(listener->Local.Port) && rules[i].At(listener->Local.Port) == listener->Local)
                return i;
        }

        return -1;
    }

    /// <summary>False if there is none left to read.</summary>
    bool BeginNextList()
    {
        for (; _atPif < _tables.Pifs.Length; _atPif++, _atList = -1)
        {
            while (++_atList < ListsOfPif)
            {
                if (!Wants(Protocol))
                    continue;
                _anyWanted = true;
                ISocketList list = _lists[_atPif] ??= _tables.Pifs[_atPif].Connects.SocketList;
                Result begun = list.Begin((byte)Protocol, (_atList & 1) == 0 ? SocketAddress.V4 : SocketAddress.V6);
                _reading = begun.Ok;
                if (begun.Ok)
                    return true;
                // A kernel without IPv6 has no such list.
                _isWhole &= begun.Is(Errno.ENOENT);
            }
        }

        return false;
    }

    IpProtocol Protocol => _atList < 2 ? IpProtocol.Tcp : IpProtocol.Udp;

    bool Wants(IpProtocol protocol)
    {
        foreach (ref readonly Rule rule in _tables.Rules(_atPif, Set))
        {
            if (rule.IsScan && rule.Protocol == protocol)
                return true;
        }

        return false;
    }

    /// <summary>Finds or orders the sockets that are wanted because of a service.</summary>
    void Consider(in BoundSocket service)
    {
        if (service.Port == 0 || IsOurs(in service))
            return;
        NoteLoopback(in service);
        ReadOnlySpan<Rule> rules = _tables.Rules(_atPif, Set);
        for (int i = 0; i < rules.Length; i++)
        {
            ref readonly Rule rule = ref rules[i];
            int port = rule.First + (service.Port - rule.To);
            if (!rule.IsScan || rule.Protocol != Protocol || port < rule.First || port > rule.Last || !Reaches(in rule, in service))
                continue;
            ListenAddress local = rule.At((ushort)port);
            int found = _listeners.Find(_atPif, in local);
            if (found >= 0)
                Found += Keep(found, i) ? 1 : 0;
            else
                Want(i, in local);
        }
    }

    void NoteLoopback(in BoundSocket service)
    {
        if (_tables.Pifs[_atPif].LoopbackServices is not LoopbackServices services || !service.IsOnLoopback)
            return;
        ListenAddress local = ListenAddress.Of(Protocol, in service);
        if (local.Serves(Address.LoopbackV4))
            services.Add(Protocol, isV4: true, service.Port, service.Address.IsLoopback);
        if (local.Serves(Address.LoopbackV6))
            services.Add(Protocol, isV4: false, service.Port, service.Address.IsLoopback);
    }

    /// <summary>Whether a socket in the target is one of the forwarder's, which listens there for another pif.</summary>
    bool IsOurs(in BoundSocket service)
    {
        NetworkNamespace side = _tables.Pifs[_atPif].Connects;
        for (int pif = 0; pif < _tables.Pifs.Length; pif++)
        {
            if (_tables.Pifs[pif].Listens != side)
                continue;
            for (int i = _listeners.FirstOnPort(pif, Protocol, service.Port); i >= 0; i = _listeners.NextOnPort(i))
            {
                if (_listeners[i]->Local.Address == service.Address)
                    return true;
            }
        }

        return false;
    }

    /// <summary>Whether what a rule forwards comes to a service, from clients of one family at least.</summary>
    bool Reaches(in Rule rule, in BoundSocket service)
    {
        if (!service.IsOnLoopback)
            return false;
        ListenAddress local = ListenAddress.Of(Protocol, in service);
        (Address one, Address another) = _targets.Of(in rule);
        return local.Serves(one) || local.Serves(another);
    }

    /// <summary>Notes that there is a service behind a socket; false if the rule had it already.</summary>
    bool Keep(int index, int rule)
    {
        Listeners.Listener* listener = _listeners[index];
        listener->Seen = _round;
        if (listener->Rule[Set] == rule)
            return false;
        listener->Rule[Set] = (short)rule;
        if (Set == _tables.Active)
            _acceptor.Arm(index);
        return true;
    }

    /// <summary>Services of both families want the same socket: the batch has it once.</summary>
    void Want(int rule, in ListenAddress local)
    {
        _opener.Add(_atPif, rule, in local, DescriptorUse.ListeningAuto);
        if (_opener.IsFull)
            Open();
    }

    void Open()
    {
        if (_opener.IsEmpty)
            return;
        _opener.Begin();
        _ = _opener.End(wait: true);
        foreach (ref readonly ListenerOpener.Wanted wanted in _opener.Results)
        {
            if (wanted.Index < 0)
            {
                Fail(in wanted);
                continue;
            }

            _ = SetFailed(wanted.Local.Port, false);
            _ = Keep(wanted.Index, wanted.Rule);
            Opened++;
        }

        _opener.Clear();
    }

    /// <summary>It is tried again with every scan, and told once.</summary>
    void Fail(in ListenerOpener.Wanted wanted)
    {
        if (SetFailed(wanted.Local.Port, true))
            return;
        _counters.SocketsFailed++;
        Rule* rule = _tables.Rule(_atPif, Set, wanted.Rule);
        if (rule->IsWeak)
            Log.Debug($"{BindFailure.Text(in *rule, wanted.Local.Port, wanted.Error)}");
        else
            Log.Warn($"{BindFailure.Text(in *rule, wanted.Local.Port, wanted.Error)}");
    }

    /// <summary>Notes whether a port could be opened, and gives what was noted before.</summary>
    bool SetFailed(ushort port, bool now)
    {
        int bit = (((_atPif * 2) + (Protocol == IpProtocol.Tcp ? 0 : 1)) * 65536) + port;
        ref ulong word = ref _failed[bit >> 6];
        ulong mask = 1ul << (bit & 63);
        bool before = (word & mask) != 0;
        word = now ? word | mask : word & ~mask;
        return before;
    }

    /// <summary>After a scan, goes on for a bounded time to close what has no service any more.</summary>
    void CloseSome()
    {
        int end = Math.Min(_atSocket + Stride, _listeners.High);
        for (int closed = 0; _atSocket < end && closed < ClosingStride; _atSocket++)
        {
            if (!_listeners.Exists(_atSocket))
                continue;
            Listeners.Listener* listener = _listeners[_atSocket];
            int rule = listener->Rule[_tables.Active];
            // What the other tables want too is for the transaction to decide.
            if (rule < 0 || listener->Rule[_tables.Shadow] >= 0 || !_tables.Rule(listener->Pif, _tables.Active, rule)->IsScan)
                continue;
            if (!listener->Quiesced && _round - listener->Seen < RoundsToStay)
                continue;
            _ = _closer.Close(_atSocket);
            closed++;
        }

        if (_atSocket >= _listeners.High)
            _work = Work.None;
    }
}
