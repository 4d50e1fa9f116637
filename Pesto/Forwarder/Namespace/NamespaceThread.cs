using Pesto.Linux;

namespace Pesto.Forwarder.Namespace;

/// <summary>
/// The namespace that the loop's thread has left, and to which an unprivileged user's setns(2) back fails. A second thread stays
/// there and opens sockets on request. The loop waits for each answer, so that there is nothing to lock, except for the listening sockets
/// of a commit: there the loop goes on, and does not touch the requests until the answer has come. The thread has no access to tables or flows.
/// </summary>
public sealed class NamespaceThread : NetworkNamespace
{
    const int StackSize = 256 * 1024;

    readonly int _asked = Descriptors.EventCounter().OrThrow("creating an event counter");
    readonly int _answered = Descriptors.EventCounter().OrThrow("creating an event counter");
    readonly CurrentNamespace _own = new();
    readonly ListenRequest[] _orders = new ListenRequest[MostListeners];
    readonly ListenRequest[] _ordersBegun = new ListenRequest[MostListeners];
    readonly int _poolSize;
    readonly int[][] _pools;
    readonly int[] _pooled = new int[4];

    Request _request;
    bool _isAsked;
    bool _isAnswered;
    int _count;
    int _pool;
    Address _address;
    Action? _action;
    Result _result;

    /// <summary>Starts the thread, in the namespace of the calling thread.</summary>
    /// <param name="poolSize">Unconnected sockets that are kept at hand for flows, of each protocol and family: one change of threads gets so many.</param>
    public NamespaceThread(int poolSize)
    {
        _poolSize = poolSize;
        _pools = [new int[poolSize], new int[poolSize], new int[poolSize], new int[poolSize]];
        Thread thread = new(Serve, StackSize) { IsBackground = true };
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

    public override HalfOpenConnections HalfOpen { get; } = new();

    public override ISocketList SocketList
    {
        get
        {
            Ask(Request.OpenSocketList);
            return _own.SocketList;
        }
    }

    public override Result OpenInterfaceEvents()
    {
        Result opened = default;
        Run(() => opened = _own.OpenInterfaceEvents());
        return opened;
    }

    public override Result Tcp(ushort family) => FromPool(family == SocketAddress.V4 ? 0 : 1);

    public override Result Udp(ushort family) => FromPool(family == SocketAddress.V4 ? 2 : 3);

    Result FromPool(int wanted)
    {
        if (_pooled[wanted] == 0)
        {
            End();
            _pool = wanted;
            Ask(Request.FillPool);
            if (_pooled[wanted] == 0)
                return _result;
        }

        return Result.From(_pools[wanted][--_pooled[wanted]]);
    }

    public override void Listen(Span<ListenRequest> orders)
    {
        End();
        orders.CopyTo(_orders);
        _count = orders.Length;
        Ask(Request.Listen);
        _orders.AsSpan(0, orders.Length).CopyTo(orders);
    }

    public override int Answers => _answered;

    public override void BeginListen(ReadOnlySpan<ListenRequest> orders)
    {
        orders.CopyTo(_ordersBegun);
        _count = orders.Length;
        Begin(Request.ListenBegun);
    }

    public override bool EndListen(Span<ListenRequest> orders, bool wait)
    {
        if (_isAsked && !wait && !Volatile.Read(ref _isAnswered))
            return false;
        End();
        _ordersBegun.AsSpan(0, orders.Length).CopyTo(orders);
        return true;
    }

    public override bool IsLocal(Address address)
    {
        _address = address;
        Ask(Request.IsLocal);
        return _result.Value == 1;
    }

    /// <summary>Has the thread do something else, once.</summary>
    public void Run(Action what)
    {
        _action = what;
        Ask(Request.Run);
    }

    void Ask(Request what)
    {
        End();
        Begin(what);
        End();
    }

    void Begin(Request what)
    {
        _request = what;
        _isAsked = true;
        _isAnswered = false;
        Signal(_asked);
    }

    /// <summary>Waits until the thread has done what it was asked to do last, if that has not been waited for yet.</summary>
    void End()
    {
        if (!_isAsked)
            return;
        Await(_answered);
        _isAsked = false;
    }

    void Serve()
    {
        while (true)
        {
            Await(_asked);
            switch (_request)
            {
                case Request.Listen:
                    _own.Listen(_orders.AsSpan(0, _count));
                    break;
                case Request.ListenBegun:
                    _own.Listen(_ordersBegun.AsSpan(0, _count));
                    break;
                case Request.FillPool:
                    FillPool();
                    break;
                case Request.OpenSocketList:
                    _ = _own.SocketList;
                    break;
                case Request.Run:
                    _action!();
                    break;
                case Request.IsLocal:
                default:
                    _result = Result.From(_own.IsLocal(_address) ? 1 : 0);
                    break;
            }

            Volatile.Write(ref _isAnswered, true);
            Signal(_answered);
        }
    }

    void FillPool()
    {
        ushort family = (_pool & 1) == 0 ? SocketAddress.V4 : SocketAddress.V6;
        while (_pooled[_pool] < _poolSize)
        {
            _result = _pool < 2 ? _own.Tcp(family) : _own.Udp(family);
            if (!_result.Ok)
                return;
            _pools[_pool][_pooled[_pool]++] = _result.Value;
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
