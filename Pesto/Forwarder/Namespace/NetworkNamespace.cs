using Pesto.Linux;

namespace Pesto.Forwarder.Namespace;

/// <summary>
/// A network namespace in which the loop needs sockets. A socket belongs to the namespace of the thread that makes it,
/// so the loop's own side costs a system call, and the other side is asked of the thread that stays there.
/// </summary>
public abstract class NetworkNamespace
{
    /// <summary>The most listening sockets that are asked for at a time: what a slice of a commit takes.</summary>
    public const int MostListeners = 16;

    /// <summary>An unconnected, non-blocking TCP socket. Fails with EMFILE, ENFILE, ENOBUFS, ENOMEM or EAFNOSUPPORT.</summary>
    public abstract Result Tcp(ushort family);

    /// <summary>An unconnected, non-blocking UDP socket. Fails like <see cref="Tcp"/>.</summary>
    public abstract Result Udp(ushort family);

    /// <summary>What congestion control its sockets to targets have.</summary>
    public CongestionChoice Congestion { get; } = new();

    /// <summary>Opens listening sockets; each order carries its own outcome.</summary>
    public abstract void Listen(Span<ListenRequest> orders);

    /// <summary>Begins to open listening sockets: where another thread does that, the loop goes on with its traffic.</summary>
    public virtual void BeginListen(ReadOnlySpan<ListenRequest> orders)
    {
    }

    /// <summary>Ends what was begun with the same orders. False if it is not done yet: then <see cref="Answers"/> will be readable.</summary>
    /// <param name="wait">Until it is done.</param>
    public virtual bool EndListen(Span<ListenRequest> orders, bool wait)
    {
        Listen(orders);
        return true;
    }

    /// <summary>A descriptor that becomes readable when what was begun is done, or -1 where there is nothing to wait for.</summary>
    public virtual int Answers => -1;

    /// <summary>Lists the sockets of this namespace.</summary>
    public abstract ISocketList SocketList { get; }

    /// <summary>TCP connections to this namespace whose handshake is under way.</summary>
    public abstract HalfOpenConnections HalfOpen { get; }

    /// <summary>
    /// A descriptor that becomes readable when interfaces or addresses of this namespace come, go or change (rtnetlink(7)); what is read
    /// from it does not matter.
    /// </summary>
    public abstract Result OpenInterfaceEvents();

    /// <summary>Whether an address is one of this namespace's own.</summary>
    public abstract bool IsLocal(Address address);
}

/// <summary>The namespace that the loop's thread is in.</summary>
public sealed class CurrentNamespace : NetworkNamespace
{
    ISocketList? _list;

    public override ISocketList SocketList => _list ??= SocketLists.Open();

    HalfOpenConnections? _halfOpen;

    // Not before it is needed: the thread comes into its namespace after the side is made.
    public override HalfOpenConnections HalfOpen => _halfOpen ??= new();

    public override Result OpenInterfaceEvents() => InterfaceEvents.Open();

    public override Result Tcp(ushort family) => Sockets.Tcp(family);

    public override Result Udp(ushort family) => Sockets.Udp(family);

    public override void Listen(Span<ListenRequest> orders)
    {
        foreach (ref ListenRequest order in orders)
            order.Open();
    }

    public override bool IsLocal(Address address)
    {
        if (address.IsLoopback)
            return true;
        SocketAddress any = SocketAddress.Of(address, 0);
        Result socket = Sockets.Udp(any.Family);
        if (!socket.Ok)
            return false;
        bool local = Sockets.Bind(socket.Value, in any).Ok;
        Descriptors.Close(socket.Value);
        return local;
    }
}
