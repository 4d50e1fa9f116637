using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder;

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

    readonly Loop loop;
    readonly Tables tables;
    readonly Listeners listeners;
    readonly Acceptor acceptor;
    readonly Transaction transaction;
    readonly Targets targets;
    readonly Counters counters;
    readonly SocketSettings settings;
    readonly ISocketList?[] lists = new ISocketList?[Tables.PifCount];
    readonly ListenOrder[] orders = new ListenOrder[Side.MostListeners];
    readonly int[] orderedBy = new int[Side.MostListeners];

    // One bit for each pif, protocol and port that could not be opened, and of which it was said.
    readonly NativeArray<ulong> failed = new(Tables.PifCount * 2 * 65536 / 64);

    long nextAt = long.MaxValue;
    bool underWay;
    bool incomplete;
    bool anyWanted;
    uint round;
    int ordered;

    // Where the scan has got to: which of a pif's lists (TCP and UDP of either family) is being read.
    int atPif;
    int atList;
    bool reading;

    // Which listening socket is looked at next, when what is gone is being closed; else -1.
    int atSocket = -1;

    public Scan(Loop loop, Tables tables, Listeners listeners, Acceptor acceptor, Transaction transaction, Targets targets, Counters counters, SocketSettings settings)
    {
        this.loop = loop;
        this.tables = tables;
        this.listeners = listeners;
        this.acceptor = acceptor;
        this.transaction = transaction;
        this.targets = targets;
        this.counters = counters;
        this.settings = settings;
        loop.AddTimed(this);
    }

    /// <summary>The set of tables whose rules are being scanned for.</summary>
    public int Set { get; private set; }

    /// <summary>Of this scan: wanted sockets that were there already.</summary>
    public int Found { get; private set; }

    public int Opened { get; private set; }

    // While a transaction changes what is wanted, it scans by itself.
    public long Deadline => !this.transaction.IsSettled ? long.MaxValue : this.underWay || this.atSocket >= 0 ? 0 : this.nextAt;

    public void OnTime(long now)
    {
        if (!this.underWay && this.atSocket < 0)
            this.Begin(this.tables.Active);
        if (this.underWay && this.Step() && !this.incomplete)
            this.atSocket = 0;
        if (!this.underWay)
            this.CloseWhatIsGone();
    }

    /// <summary>Begins to open what the "auto" rules of a set of tables want; a scan that was under way is given up.</summary>
    public void Begin(int set)
    {
        this.Set = set;
        this.Found = this.Opened = 0;
        this.ordered = this.atPif = 0;
        this.atList = this.atSocket = -1;
        this.reading = this.incomplete = this.anyWanted = false;
        this.underWay = true;
        this.round++;
    }

    /// <summary>Goes on for a bounded time; true at the end of the scan.</summary>
    public bool Step()
    {
        for (int looked = 0; looked < Stride; looked++)
        {
            if (!this.reading && !this.BeginNextList())
            {
                this.underWay = false;
                this.counters.Scans++;
                this.nextAt = this.anyWanted ? this.loop.Now + Interval : long.MaxValue;
                return true;
            }

            Result next = this.lists[this.atPif]!.Next(out BoundSocket socket);
            if (next.Ok && next.Value > 0)
            {
                this.Consider(in socket);
                continue;
            }

            this.incomplete |= !next.Ok;
            this.reading = false;
            this.Open();
        }

        this.Open();
        return false;
    }

    /// <summary>False if there is none left to read.</summary>
    bool BeginNextList()
    {
        for (; this.atPif < this.tables.Pifs.Length; this.atPif++, this.atList = -1)
        {
            while (++this.atList < ListsOfPif)
            {
                if (!this.Wants(this.Protocol))
                    continue;
                this.anyWanted = true;
                ISocketList list = this.lists[this.atPif] ??= this.tables.Pifs[this.atPif].Connects.SocketList;
                Result begun = list.Begin((byte)this.Protocol, (this.atList & 1) == 0 ? SocketAddress.V4 : SocketAddress.V6);
                this.reading = begun.Ok;
                if (begun.Ok)
                    return true;
                // A kernel without IPv6 has no such list.
                this.incomplete |= !begun.Is(Errno.ENOENT);
            }
        }

        return false;
    }

    IpProtocol Protocol => this.atList < 2 ? IpProtocol.Tcp : IpProtocol.Udp;

    bool Wants(IpProtocol protocol)
    {
        foreach (ref readonly Rule rule in this.tables.Rules(this.atPif, this.Set))
        {
            if (rule.IsScan && rule.Protocol == protocol)
                return true;
        }

        return false;
    }

    /// <summary>Finds or orders the sockets that are wanted because of a service.</summary>
    void Consider(in BoundSocket service)
    {
        if (service.Port == 0 || this.IsOurs(in service))
            return;
        ReadOnlySpan<Rule> rules = this.tables.Rules(this.atPif, this.Set);
        for (int i = 0; i < rules.Length; i++)
        {
            ref readonly Rule rule = ref rules[i];
            int port = rule.First + (service.Port - rule.To);
            if (!rule.IsScan || rule.Protocol != this.Protocol || port < rule.First || port > rule.Last || !this.Reaches(in rule, in service))
                continue;
            int found = this.listeners.Find(this.atPif, in rule, (ushort)port);
            if (found < 0)
                this.Order(in rule, i, (ushort)port);
            else if (this.Keep(found, i))
                this.Found++;
        }
    }

    /// <summary>Whether a socket in the target is one of the forwarder's, which listens there for another pif.</summary>
    bool IsOurs(in BoundSocket service)
    {
        Side side = this.tables.Pifs[this.atPif].Connects;
        for (int pif = 0; pif < this.tables.Pifs.Length; pif++)
        {
            if (this.tables.Pifs[pif].Listens != side)
                continue;
            for (int i = this.listeners.FirstOnPort(pif, this.Protocol, service.Port); i >= 0; i = this.listeners.NextOnPort(i))
            {
                if (this.listeners[i]->Address == service.Address)
                    return true;
            }
        }

        return false;
    }

    /// <summary>Whether what a rule forwards comes to a service, from clients of one family at least.</summary>
    bool Reaches(in Rule rule, in BoundSocket service)
    {
        if (!rule.Target.IsWildcard)
            return service.Takes(rule.Target);
        return ((rule.IsDualStack || rule.Address.IsV4) && service.Takes(this.targets.Default(isV4: true)))
            || ((rule.IsDualStack || rule.Address.IsV6) && service.Takes(this.targets.Default(isV4: false)));
    }

    /// <summary>Notes that there is a service behind a socket; false if the rule had it already.</summary>
    bool Keep(int index, int rule)
    {
        Listeners.Listener* listener = this.listeners[index];
        listener->Seen = this.round;
        if (listener->Rule[this.Set] == rule)
            return false;
        listener->Rule[this.Set] = (short)rule;
        if (this.Set == this.tables.Active)
            this.acceptor.Arm(index);
        return true;
    }

    void Order(in Rule rule, int position, ushort port)
    {
        // Services of both families want the same socket.
        for (int i = 0; i < this.ordered; i++)
        {
            if (this.orderedBy[i] == position && this.orders[i].Port == port)
                return;
        }

        this.orderedBy[this.ordered] = position;
        this.orders[this.ordered++] = ListenOrder.For(in rule, port, this.settings);
        if (this.ordered == Side.MostListeners)
            this.Open();
    }

    void Open()
    {
        if (this.ordered == 0)
            return;
        Side side = this.tables.Pifs[this.atPif].Listens;
        side.Listen(this.orders.AsSpan(0, this.ordered));
        for (int i = 0; i < this.ordered; i++)
        {
            ref ListenOrder order = ref this.orders[i];
            if (order.Outcome.Is(Errno.EADDRINUSE))
                this.transaction.TakeOver(side, this.atPif, ref order);
            int index = order.Outcome.Ok ? this.listeners.Add(this.atPif, in order) : -1;
            if (index >= 0)
            {
                this.SetFailed(order.Port, false);
                _ = this.Keep(index, this.orderedBy[i]);
                this.Opened++;
                this.counters.SocketsOpened++;
                continue;
            }

            if (order.Outcome.Ok)
            {
                Descriptors.Close(order.Outcome.Value);
                order.Outcome = Result.From(Errno.EMFILE);
            }

            this.Fail(this.orderedBy[i], in order);
        }

        this.ordered = 0;
    }

    /// <summary>It is tried again with every scan, and told once.</summary>
    void Fail(int position, in ListenOrder order)
    {
        if (this.SetFailed(order.Port, true))
            return;
        this.counters.SocketsFailed++;
        Rule* rule = this.tables.Rule(this.atPif, this.Set, position);
        if (rule->IsWeak)
            Log.Debug($"{BindFailure.Text(in *rule, order.Port, order.Outcome.Error)}");
        else
            Log.Warn($"{BindFailure.Text(in *rule, order.Port, order.Outcome.Error)}");
    }

    /// <summary>Notes whether a port could be opened, and gives what was noted before.</summary>
    bool SetFailed(ushort port, bool now)
    {
        int bit = (((this.atPif * 2) + (this.Protocol == IpProtocol.Tcp ? 0 : 1)) * 65536) + port;
        ref ulong word = ref this.failed[bit >> 6];
        ulong mask = 1ul << (bit & 63);
        bool before = (word & mask) != 0;
        word = now ? word | mask : word & ~mask;
        return before;
    }

    /// <summary>After a scan, goes on for a bounded time to close what has no service any more.</summary>
    void CloseWhatIsGone()
    {
        int closed = 0;
        for (; this.atSocket >= 0 && closed < Side.MostListeners; this.atSocket++)
        {
            int i = this.atSocket;
            if (i >= this.listeners.High)
            {
                this.atSocket = -1;
                return;
            }

            if (!this.listeners.Exists(i))
                continue;
            Listeners.Listener* listener = this.listeners[i];
            int rule = listener->Rule[this.tables.Active];
            // What the other tables want too is for the transaction to decide.
            if (rule < 0 || listener->Rule[this.tables.Shadow] >= 0 || !this.tables.Rule(listener->Pif, this.tables.Active, rule)->IsScan)
                continue;
            if (!listener->Deaf && this.round - listener->Seen < RoundsToStay)
                continue;
            _ = this.transaction.Retire(i);
            closed++;
        }
    }
}
