using System.Buffers.Binary;

namespace Pesto.Linux;

/// <summary>
/// The TCP connections that are half open: a SYN was received, and the ACK that completes the handshake is still to come. The kernel
/// lists them by sock_diag(7), for the network namespace of the thread that makes this.
/// </summary>
/// <remarks>
/// The kernel finds them among all connections. Where it passes over those that are not asked for, it does not stop for a reader, and
/// with 100,000 of another family, port or state that takes 10 ms and more: so it is asked for all, by the request that has both families,
/// and what is not half open is passed over here, one part at a time.
/// </remarks>
public sealed unsafe class HalfOpenConnections
{
    readonly NetlinkDump? _dump;

    /// <summary>Where there is no such thing as socket diagnosis, none is ever seen.</summary>
    public HalfOpenConnections()
    {
        Result socket = NetlinkDump.Open(InetDiagnosis.NetlinkProtocol);
        _dump = socket.Ok ? new(socket.Value) : null;
    }

    internal HalfOpenConnections(int fd) => _dump = new(fd);

    /// <summary>Asks anew; go on with <see cref="Next"/>.</summary>
    public void Begin()
    {
        const uint AllButListening = ((1u << (InetDiagnosis.LastState + 1)) - 1) & ~(1u << InetDiagnosis.Listen) & ~1u;
        Span<byte> request = stackalloc byte[InetDiagnosis.TcpSize];
        request.Clear();
        BitConverter.TryWriteBytes(request[InetDiagnosis.TcpStatesAt..], AllButListening);
        // What fails here fails in Next too.
        _ = _dump?.Begin(InetDiagnosis.Tcp, request).Ok;
    }

    /// <summary>
    /// Looks at the next connection, with one system call at most. 1: there is one, half open if its port is not 0; 0: that was the
    /// last; EAGAIN: not yet, call again. Any other error: the list breaks off.
    /// </summary>
    /// <param name="port">The local one.</param>
    public Result Next(out ushort port)
    {
        port = 0;
        if (_dump is null)
            return default;
        Result next = _dump.Next(out byte* message, out int size);
        if (next is { Ok: true, Value: > 0 } && size >= InetDiagnosis.MessageSize && message[InetDiagnosis.StateAt] == InetDiagnosis.SynReceived)
            port = BinaryPrimitives.ReverseEndianness(*(ushort*)(message + InetDiagnosis.PortAt));
        return next;
    }
}
