using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using Pesto.Linux;

namespace Pesto.Bench.Traffic;

/// <summary>
/// The far end of the traffic, one thread: <c>server MODE PORT</c>. It prints "ready" once it listens, answers every line on its
/// standard input with "BYTES DATAGRAMS NANOSECONDS" received until then, and ends with its input.
/// </summary>
sealed unsafe class Server
{
    public const string TcpEcho = "tcp-echo";
    public const string TcpSink = "tcp-sink";
    public const string TcpSource = "tcp-source";
    public const string UdpEcho = "udp-echo";
    public const string UdpSink = "udp-sink";
    public const string UdpSinkGro = "udp-sink-gro";

    /// <summary>What streams are written and read by.</summary>
    public const int Chunk = 128 * 1024;

    // So that a sink that waits for its turn on the processor is not what loses datagrams.
    const int DatagramBuffer = 4 << 20;
    const int Input = 0;

    readonly string _mode;
    readonly Epoll _epoll = new(Socket.MostEvents);
    readonly byte* _buffer = (byte*)NativeMemory.AllocZeroed(Chunk);
    readonly Messages _messages;
    readonly int _socket;
    long _bytes;
    long _datagrams;

    Server(string mode, ushort port)
    {
        _mode = mode;
        bool stream = mode is TcpEcho or TcpSink or TcpSource;
        _messages = mode == UdpSinkGro ? new(8, 65536) : new(64, 2048);
        _socket = stream ? Socket.Listen(port) : Socket.BoundDatagram(port);
        if (!stream)
            Socket.Set(_socket, Kernel.SOL_SOCKET, Kernel.SO_RCVBUF, DatagramBuffer);
        if (mode == UdpSinkGro)
            Socket.Set(_socket, Kernel.SOL_UDP, Kernel.UDP_GRO, 1);
        _epoll.Add(_socket, Events.In, (uint)_socket).OrThrow("watching a socket");
        _epoll.Add(Input, Events.In, Input).OrThrow("watching a socket");
    }

    public static int Run(string mode, ushort port)
    {
        Server server = new(mode, port);
        Console.WriteLine("ready");
        while (true)
        {
            int count = Math.Max(0, server._epoll.Wait(-1).Value);
            for (int i = 0; i < count; i++)
            {
                int fd = (int)server._epoll.DataAt(i);
                if (fd != Input)
                    server.Serve(fd);
                else if (!server.Answer())
                    return 0;
            }
        }
    }

    /// <summary>False at the end of the input.</summary>
    bool Answer()
    {
        byte* line = stackalloc byte[64];
        if (Libc.read(Input, line, 64) <= 0)
            return false;
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{_bytes} {_datagrams} {Stopwatch.GetTimestamp()}"));
        return true;
    }

    void Serve(int fd)
    {
        switch (_mode)
        {
            case UdpEcho:
                _messages.SendBack(fd, Count(fd));
                break;
            case UdpSink or UdpSinkGro:
                _ = Count(fd);
                break;
            case var _ when fd == _socket:
                Accept();
                break;
            case TcpEcho:
                Echo(fd);
                break;
            case TcpSink:
                Discard(fd);
                break;
            default:
                Produce(fd);
                break;
        }
    }

    void Accept()
    {
        int fd;
        while ((fd = Libc.accept4(_socket, null, null, Kernel.SOCK_CLOEXEC)) >= 0)
        {
            Socket.Set(fd, Kernel.IPPROTO_TCP, Kernel.TCP_NODELAY, 1);
            _epoll.Add(fd, _mode == TcpSource ? Events.Out : Events.In, (uint)fd).OrThrow("watching a socket");
        }
    }

    void Echo(int fd)
    {
        nint n = Libc.recv(fd, _buffer, Chunk, Kernel.MSG_DONTWAIT);
        if (n > 0)
        {
            _bytes += n;
            if (!Socket.SendAll(fd, _buffer, (int)n))
                Close(fd);
        }
        else
        {
            CloseUnlessEmpty(fd, n);
        }
    }

    void Discard(int fd)
    {
        nint n = Libc.recv(fd, _buffer, Chunk, Kernel.MSG_DONTWAIT);
        if (n > 0)
            _bytes += n;
        else
            CloseUnlessEmpty(fd, n);
    }

    void Produce(int fd)
    {
        nint n = Libc.send(fd, _buffer, Chunk, Kernel.MSG_DONTWAIT | Kernel.MSG_NOSIGNAL);
        if (n < 0)
            CloseUnlessEmpty(fd, n);
    }

    static void CloseUnlessEmpty(int fd, nint returned)
    {
        if (!Result.Of(returned).Is(Errno.EAGAIN))
            Close(fd);
    }

    static void Close(int fd) => _ = Libc.close(fd);

    int Count(int fd)
    {
        int n = Math.Max(0, _messages.Receive(fd, withControl: _mode == UdpSinkGro));
        for (int i = 0; i < n; i++)
        {
            uint length = _messages.Length(i);
            _bytes += length;
            _datagrams += _mode == UdpSinkGro && length > 0 ? (length + _messages.SegmentSize(i) - 1) / _messages.SegmentSize(i) : 1;
        }

        return n;
    }
}
