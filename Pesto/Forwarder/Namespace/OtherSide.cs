using Pesto.Linux;

namespace Pesto.Forwarder;

/// <summary>
/// The namespace that the loop's thread has left, and to which an ordinary user can't come back. A second thread stays
/// there and does nothing but open sockets when asked. The loop waits for it, so that there is nothing to lock; only while
/// it opens listening sockets for a commit, which may take a while, the loop goes on, and keeps its hands off these orders
/// until they are done. The thread never sees a table or a flow.
/// </summary>
public sealed class OtherSide : Side
{
    /// <summary>Unconnected sockets that are kept at hand for flows, of each protocol and family: one change of threads gets so many.</summary>
    const int PoolSize = 32;

    const int StackSize = 256 * 1024;

    readonly int asked = Descriptors.EventCounter().OrThrow("creating an event counter");
    readonly int answered = Descriptors.EventCounter().OrThrow("creating an event counter");
    readonly OwnSide own = new();
    readonly ListenOrder[] orders = new ListenOrder[MostListeners];
    readonly ListenOrder[] ordersBegun = new ListenOrder[MostListeners];
    readonly int[][] pools = [new int[PoolSize], new int[PoolSize], new int[PoolSize], new int[PoolSize]];
    readonly int[] pooled = new int[4];

    Request request;
    bool isAsked;
    bool isAnswered;
    int count;
    int pool;
    Address address;
    Action? action;
    Result result;

    /// <summary>Starts the thread, in the namespace that the caller's thread is in now.</summary>
    public OtherSide()
    {
        Thread thread = new(this.Serve, StackSize) { IsBackground = true };
        thread.Start();
    }

    enum Request
    {
        Listen,
        ListenBegun,
        FillPool,
        IsLocal,
        OpenSocketList,
        Run,
    }

    public override Handshakes Handshakes { get; } = new();

    public override ISocketList SocketList
    {
        get
        {
            this.Ask(Request.OpenSocketList);
            return this.own.SocketList;
        }
    }

    public override Result Tcp(ushort family) => this.FromPool(family == SocketAddress.V4 ? 0 : 1);

    public override Result Udp(ushort family) => this.FromPool(family == SocketAddress.V4 ? 2 : 3);

    Result FromPool(int wanted)
    {
        if (this.pooled[wanted] == 0)
        {
            this.End();
            this.pool = wanted;
            this.Ask(Request.FillPool);
            if (this.pooled[wanted] == 0)
                return this.result;
        }

        return Result.From(this.pools[wanted][--this.pooled[wanted]]);
    }

    public override void Listen(Span<ListenOrder> wanted)
    {
        this.End();
        wanted.CopyTo(this.orders);
        this.count = wanted.Length;
        this.Ask(Request.Listen);
        this.orders.AsSpan(0, wanted.Length).CopyTo(wanted);
    }

    public override int Answers => this.answered;

    public override void BeginListen(ReadOnlySpan<ListenOrder> wanted)
    {
        wanted.CopyTo(this.ordersBegun);
        this.count = wanted.Length;
        this.Begin(Request.ListenBegun);
    }

    public override bool EndListen(Span<ListenOrder> wanted, bool wait)
    {
        if (this.isAsked && !wait && !Volatile.Read(ref this.isAnswered))
            return false;
        this.End();
        this.ordersBegun.AsSpan(0, wanted.Length).CopyTo(wanted);
        return true;
    }

    public override bool IsLocal(Address wanted)
    {
        this.address = wanted;
        this.Ask(Request.IsLocal);
        return this.result.Value == 1;
    }

    /// <summary>Has the thread do something else, once.</summary>
    public void Run(Action what)
    {
        this.action = what;
        this.Ask(Request.Run);
    }

    void Ask(Request what)
    {
        this.End();
        this.Begin(what);
        this.End();
    }

    void Begin(Request what)
    {
        this.request = what;
        this.isAsked = true;
        this.isAnswered = false;
        Signal(this.asked);
    }

    /// <summary>Waits until the thread has done what it was asked to do last, if that has not been waited for yet.</summary>
    void End()
    {
        if (!this.isAsked)
            return;
        Await(this.answered);
        this.isAsked = false;
    }

    void Serve()
    {
        while (true)
        {
            Await(this.asked);
            switch (this.request)
            {
                case Request.Listen:
                    this.own.Listen(this.orders.AsSpan(0, this.count));
                    break;
                case Request.ListenBegun:
                    this.own.Listen(this.ordersBegun.AsSpan(0, this.count));
                    break;
                case Request.FillPool:
                    this.FillPool();
                    break;
                case Request.OpenSocketList:
                    _ = this.own.SocketList;
                    break;
                case Request.Run:
                    this.action!();
                    break;
                case Request.IsLocal:
                default:
                    this.result = Result.From(this.own.IsLocal(this.address) ? 1 : 0);
                    break;
            }

            Volatile.Write(ref this.isAnswered, true);
            Signal(this.answered);
        }
    }

    void FillPool()
    {
        ushort family = (this.pool & 1) == 0 ? SocketAddress.V4 : SocketAddress.V6;
        while (this.pooled[this.pool] < PoolSize)
        {
            this.result = this.pool < 2 ? this.own.Tcp(family) : this.own.Udp(family);
            if (!this.result.Ok)
                return;
            this.pools[this.pool][this.pooled[this.pool]++] = this.result.Value;
        }
    }

    // Both can fail only if the descriptor is not an event counter.
    static void Signal(int counter)
    {
        ReadOnlySpan<byte> one = [1, 0, 0, 0, 0, 0, 0, 0];
        _ = Descriptors.WriteAll(counter, BitConverter.IsLittleEndian ? one : [0, 0, 0, 0, 0, 0, 0, 1]);
    }

    static void Await(int counter)
    {
        Span<byte> value = stackalloc byte[8];
        _ = Descriptors.Read(counter, value);
    }
}
