using Pesto.Linux;

namespace Pesto.Forwarder;

/// <summary>
/// The namespace that the loop's thread has left, and to which an ordinary user can't come back. A second thread stays
/// there and does nothing but open sockets when asked, while the loop waits for it: they never run at the same time, so
/// there is nothing to lock. It never sees a table or a flow.
/// </summary>
public sealed class OtherSide : Side
{
    /// <summary>Unconnected sockets that are kept at hand for flows, of each family: one change of threads gets so many.</summary>
    const int PoolSize = 32;

    const int StackSize = 256 * 1024;

    readonly int asked = Descriptors.EventCounter().OrThrow("creating an event counter");
    readonly int answered = Descriptors.EventCounter().OrThrow("creating an event counter");
    readonly OwnSide own = new();
    readonly ListenOrder[] orders = new ListenOrder[MostListeners];
    readonly int[][] pools = [new int[PoolSize], new int[PoolSize]];
    readonly int[] pooled = new int[2];

    Request request;
    int count;
    ushort family;
    Address address;
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
        FillPool,
        IsLocal,
    }

    public override Handshakes Handshakes { get; } = new();

    public override Result Tcp(ushort socketFamily)
    {
        int pool = socketFamily == SocketAddress.V4 ? 0 : 1;
        if (this.pooled[pool] == 0)
        {
            this.family = socketFamily;
            this.Ask(Request.FillPool);
            if (this.pooled[pool] == 0)
                return this.result;
        }

        return Result.From(this.pools[pool][--this.pooled[pool]]);
    }

    public override void Listen(Span<ListenOrder> wanted)
    {
        wanted.CopyTo(this.orders);
        this.count = wanted.Length;
        this.Ask(Request.Listen);
        this.orders.AsSpan(0, wanted.Length).CopyTo(wanted);
    }

    public override bool IsLocal(Address wanted)
    {
        this.address = wanted;
        this.Ask(Request.IsLocal);
        return this.result.Value == 1;
    }

    void Ask(Request what)
    {
        this.request = what;
        Signal(this.asked);
        Await(this.answered);
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
                case Request.FillPool:
                    this.FillPool();
                    break;
                case Request.IsLocal:
                default:
                    this.result = Result.From(this.own.IsLocal(this.address) ? 1 : 0);
                    break;
            }

            Signal(this.answered);
        }
    }

    void FillPool()
    {
        int pool = this.family == SocketAddress.V4 ? 0 : 1;
        while (this.pooled[pool] < PoolSize)
        {
            this.result = this.own.Tcp(this.family);
            if (!this.result.Ok)
                return;
            this.pools[pool][this.pooled[pool]++] = this.result.Value;
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
