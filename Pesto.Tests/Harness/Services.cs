using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;

namespace Pesto.Tests.Harness;

/// <summary>A TCP server in a namespace, which does with each connection what the test says.</summary>
sealed class TcpService : IDisposable
{
    readonly Socket _listener;
    readonly Func<Socket, Task> _serve;
    readonly ConcurrentDictionary<Socket, byte> _open = new();
    int _accepted;

    public TcpService(NetworkNamespace where, IPEndPoint at, Func<Socket, Task> serve)
    {
        _serve = serve;
        _listener = where.NewSocket(at.AddressFamily, SocketType.Stream);
        if (at.AddressFamily == AddressFamily.InterNetworkV6)
            _listener.DualMode = at.Address.Equals(IPAddress.IPv6Any);
        _listener.Bind(at);
        _listener.Listen(1024);
        _ = Accept();
    }

    /// <summary>Sends back what it gets, half-closes when its peer does.</summary>
    public static TcpService Echo(NetworkNamespace where, IPEndPoint at) => new(where, at, async socket =>
    {
        byte[] buffer = new byte[65536];
        int count;
        while ((count = await socket.ReceiveAsync(buffer)) > 0)
        {
            for (int sent = 0; sent < count;)
                sent += await socket.SendAsync(buffer.AsMemory(sent, count - sent));
        }

        socket.Shutdown(SocketShutdown.Send);
    });

    public static TcpService Echo(NetworkNamespace where, int port) => Echo(where, new IPEndPoint(IPAddress.Loopback, port));

    /// <summary>Sends each connection a few words and closes it: tells which server one has reached.</summary>
    public static TcpService Says(NetworkNamespace where, IPEndPoint at, string words) => new(where, at, async socket =>
    {
        await socket.SendAsync(System.Text.Encoding.UTF8.GetBytes(words));
        socket.Shutdown(SocketShutdown.Send);
        await socket.ReceiveAsync(new byte[1]);
    });

    public static TcpService Says(NetworkNamespace where, int port, string words) => Says(where, new IPEndPoint(IPAddress.Loopback, port), words);

    public int Port => ((IPEndPoint)_listener.LocalEndPoint!).Port;

    public int Accepted => _accepted;

    /// <summary>Connections that neither side has closed yet.</summary>
    public int Open => _open.Count;

    /// <summary>Who connected, as this server sees it.</summary>
    public ConcurrentQueue<IPEndPoint> Peers { get; } = new();

    async Task Accept()
    {
        try
        {
            while (true)
            {
                Socket socket = await _listener.AcceptAsync();
                socket.NoDelay = true;
                _open[socket] = 0;
                Peers.Enqueue((IPEndPoint)socket.RemoteEndPoint!);
                Interlocked.Increment(ref _accepted);
                _ = Serve(socket);
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // The test is over.
        }
    }

    async Task Serve(Socket socket)
    {
        try
        {
            await _serve(socket);
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // A test that resets a connection looks at its own end.
        }
        finally
        {
            _open.TryRemove(socket, out _);
            socket.Dispose();
        }
    }

    public void Dispose()
    {
        _listener.CloseForGood();
        foreach (Socket socket in _open.Keys)
            socket.Dispose();
    }
}

/// <summary>A UDP server in a namespace that sends every datagram back to where it came from.</summary>
sealed class UdpEcho : IDisposable
{
    readonly Socket _socket;
    int _received;

    public UdpEcho(NetworkNamespace where, IPEndPoint at)
    {
        _socket = where.NewSocket(at.AddressFamily, SocketType.Dgram);
        _socket.ReceiveBufferSize = 4 << 20;
        if (at.AddressFamily == AddressFamily.InterNetworkV6)
            _socket.DualMode = at.Address.Equals(IPAddress.IPv6Any);
        _socket.Bind(at);
        _ = Serve();
    }

    public UdpEcho(NetworkNamespace where, int port)
        : this(where, new IPEndPoint(IPAddress.Loopback, port))
    {
    }

    public int Port => ((IPEndPoint)_socket.LocalEndPoint!).Port;

    public int Received => _received;

    public ConcurrentQueue<IPEndPoint> Peers { get; } = new();

    async Task Serve()
    {
        byte[] buffer = new byte[65536];
        EndPoint anybody = new IPEndPoint(_socket.AddressFamily == AddressFamily.InterNetwork ? IPAddress.Any : IPAddress.IPv6Any, 0);
        while (true)
        {
            try
            {
                SocketReceiveFromResult datagram = await _socket.ReceiveFromAsync(buffer, SocketFlags.None, anybody);
                Interlocked.Increment(ref _received);
                Peers.Enqueue((IPEndPoint)datagram.RemoteEndPoint);
                await _socket.SendToAsync(buffer.AsMemory(0, datagram.ReceivedBytes), SocketFlags.None, datagram.RemoteEndPoint);
            }
            catch (ObjectDisposedException)
            {
                return;
            }
            catch (SocketException e) when (e.SocketErrorCode != SocketError.OperationAborted)
            {
                // A client that is gone by the time its answer comes: the next one may still be there.
            }
            catch (SocketException)
            {
                return;
            }
        }
    }

    public void Dispose() => _socket.CloseForGood();
}
