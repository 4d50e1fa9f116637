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
public sealed unsafe class Scan : ITimed
{
    const long Interval = 500;

    /// <summary>TCP and UDP, of IPv4 and IPv6 each.</summary>
    const int ListsOfPif = 4;

    /// <summary>Sockets of the target that are looked at before traffic has its turn.</summary>
    const int Stride = 64;

    /// <summary>A list that is read in parts can miss a socket once; a listening socket goes when its service is missing twice in a row.</summary>
    const uint RoundsToStay = 2;

    readonly EventLoop _loop;
    readonly Tables _tables;
    readonly Listeners _listeners;
    readonly Acceptor _acceptor;
    readonly Transaction _transaction;
    readonly Targets _targets;
    readonly Counters _counters;
    readonly SocketSettings _settings;
    readonly ISocketList?[] _lists = new ISocketList?[Tables.PifCount];
    readonly ListenRequest[] _orders = new ListenRequest[NetworkNamespace.MostListeners];
    readonly int[] _orderedBy = new int[NetworkNamespace.MostListeners];

    // One bit for each pif, protocol and port that could not be opened, and of which it was said.
    readonly NativeArray<ulong> _failed = new(Tables.PifCount * 2 * 65536 / 64);

    long _nextAt = long.MaxValue;
    bool _underWay;
    bool _incomplete;
    bool _anyWanted;
    uint _round;
    int _ordered;

    // Where the scan has got to: which of a pif's lists (TCP and UDP of either family) is being read.
    int _atPif;
    int _atList;
    bool _reading;

    // Which listening socket is looked at next, when what is gone is being closed; else -1.
    int _atSocket = -1;

    public Scan(EventLoop loop, Tables tables, Listeners listeners, Acceptor acceptor, Transaction transaction, Targets targets, Counters counters, SocketSettings settings)
    {
        _loop = loop;
        _tables = tables;
        _listeners = listeners;
        _acceptor = acceptor;
        _transaction = transaction;
        _targets = targets;
        _counters = counters;
        _settings = settings;
    }

    /// <summary>The set of tables whose rules are being scanned for.</summary>
    public int Set { get; private set; }

    /// <summary>Of this scan: wanted sockets that were there already.</summary>
    public int Found { get; private set; }

    public int Opened { get; private set; }

    // While a transaction changes what is wanted, it scans by itself.
    public long Deadline => !_transaction.IsSettled ? long.MaxValue : _underWay || _atSocket >= 0 ? 0 : _nextAt;

    public void OnTime(long now)
    {
        if (!_underWay && _atSocket < 0)
            Begin(_tables.Active);
        if (_underWay && Step() && !_incomplete)
            _atSocket = 0;
        if (!_underWay)
            CloseWhatIsGone();
    }

    /// <summary>Begins to open what the "auto" rules of a set of tables want; a scan that was under way is given up.</summary>
    public void Begin(int set)
    {
        Set = set;
        Found = Opened = 0;
        _ordered = _atPif = 0;
        _atList = _atSocket = -1;
        _reading = _incomplete = _anyWanted = false;
        _underWay = true;
        _round++;
    }

    /// <summary>Goes on for a bounded time; true at the end of the scan.</summary>
    public bool Step()
    {
        for (int looked = 0; looked < Stride; looked++)
        {
            if (!_reading && !BeginNextList())
            {
                _underWay = false;
                _counters.Scans++;
                _nextAt = _anyWanted ? _loop.Now + Interval : long.MaxValue;
                return true;
            }

            Result next = _lists[_atPif]!.Next(out BoundSocket socket);
            if (next.Ok && next.Value > 0)
            {
                Consider(in socket);
                continue;
            }

            _incomplete |= !next.Ok;
            _reading = false;
            Open();
        }

        Open();
        return false;
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
                _incomplete |= !begun.Is(Errno.ENOENT);
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
        ReadOnlySpan<Rule> rules = _tables.Rules(_atPif, Set);
        for (int i = 0; i < rules.Length; i++)
        {
            ref readonly Rule rule = ref rules[i];
            int port = rule.First + (service.Port - rule.To);
            if (!rule.IsScan || rule.Protocol != Protocol || port < rule.First || port > rule.Last || !Reaches(in rule, in service))
                continue;
            ListenAddress local = rule.At((ushort)port);
            int found = _listeners.Find(_atPif, in local);
            if (found < 0)
                Order(in local, i);
            else if (Keep(found, i))
                Found++;
        }
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

    void Order(in ListenAddress local, int position)
    {
        // Services of both families want the same socket.
        for (int i = 0; i < _ordered; i++)
        {
            if (_orderedBy[i] == position && _orders[i].Local.Port == local.Port)
                return;
        }

        _orderedBy[_ordered] = position;
        _orders[_ordered++] = new() { Local = local, Settings = _settings };
        if (_ordered == NetworkNamespace.MostListeners)
            Open();
    }

    void Open()
    {
        if (_ordered == 0)
            return;
        NetworkNamespace side = _tables.Pifs[_atPif].Listens;
        side.Listen(_orders.AsSpan(0, _ordered));
        for (int i = 0; i < _ordered; i++)
        {
            ref ListenRequest order = ref _orders[i];
            if (order.Outcome.Is(Errno.EADDRINUSE))
                _transaction.TakeOver(side, _atPif, ref order);
            int index = order.Outcome.Ok ? _listeners.Add(_atPif, in order, DescriptorUse.ListeningAuto) : -1;
            if (index >= 0)
            {
                SetFailed(order.Local.Port, false);
                _ = Keep(index, _orderedBy[i]);
                Opened++;
                _counters.SocketsOpened++;
                continue;
            }

            if (order.Outcome.Ok)
            {
                Descriptors.Close(order.Outcome.Value);
                order.Outcome = Result.From(Errno.EMFILE);
            }

            Fail(_orderedBy[i], in order);
        }

        _ordered = 0;
    }

    /// <summary>It is tried again with every scan, and told once.</summary>
    void Fail(int position, in ListenRequest order)
    {
        if (SetFailed(order.Local.Port, true))
            return;
        _counters.SocketsFailed++;
        Rule* rule = _tables.Rule(_atPif, Set, position);
        if (rule->IsWeak)
            Log.Debug($"{BindFailure.Text(in *rule, order.Local.Port, order.Outcome.Error)}");
        else
            Log.Warn($"{BindFailure.Text(in *rule, order.Local.Port, order.Outcome.Error)}");
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
    void CloseWhatIsGone()
    {
        int closed = 0;
        for (; _atSocket >= 0 && closed < NetworkNamespace.MostListeners; _atSocket++)
        {
            int i = _atSocket;
            if (i >= _listeners.High)
            {
                _atSocket = -1;
                return;
            }

            if (!_listeners.Exists(i))
                continue;
            Listeners.Listener* listener = _listeners[i];
            int rule = listener->Rule[_tables.Active];
            // What the other tables want too is for the transaction to decide.
            if (rule < 0 || listener->Rule[_tables.Shadow] >= 0 || !_tables.Rule(listener->Pif, _tables.Active, rule)->IsScan)
                continue;
            if (!listener->Quiesced && _round - listener->Seen < RoundsToStay)
                continue;
            _ = _transaction.Retire(i);
            closed++;
        }
    }
}
