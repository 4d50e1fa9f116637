using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;

namespace Pesto.Tests.Harness;

/// <summary>A TCP server in a namespace, which does with each connection what the test says.</summary>
sealed class TcpService : IDisposable
{
    readonly Socket listener;
    readonly Func<Socket, Task> serve;
    readonly ConcurrentDictionary<Socket, byte> open = new();
    int accepted;

    public TcpService(NetworkNamespace where, IPEndPoint at, Func<Socket, Task> serve)
    {
        this.serve = serve;
        this.listener = where.NewSocket(at.AddressFamily, SocketType.Stream);
        if (at.AddressFamily == AddressFamily.InterNetworkV6)
            this.listener.DualMode = at.Address.Equals(IPAddress.IPv6Any);
        this.listener.Bind(at);
        this.listener.Listen(1024);
        _ = this.Accept();
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

    public int Port => ((IPEndPoint)this.listener.LocalEndPoint!).Port;

    public int Accepted => this.accepted;

    /// <summary>Connections that neither side has closed yet.</summary>
    public int Open => this.open.Count;

    /// <summary>Who connected, as this server sees it.</summary>
    public ConcurrentQueue<IPEndPoint> Peers { get; } = new();

    async Task Accept()
    {
        try
        {
            while (true)
            {
                Socket socket = await this.listener.AcceptAsync();
                socket.NoDelay = true;
                this.open[socket] = 0;
                this.Peers.Enqueue((IPEndPoint)socket.RemoteEndPoint!);
                Interlocked.Increment(ref this.accepted);
                _ = this.Serve(socket);
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
            await this.serve(socket);
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // A test that resets a connection looks at its own end.
        }
        finally
        {
            this.open.TryRemove(socket, out _);
            socket.Dispose();
        }
    }

    public void Dispose()
    {
        this.listener.CloseForGood();
        foreach (Socket socket in this.open.Keys)
            socket.Dispose();
    }
}

/// <summary>A UDP server in a namespace that sends every datagram back to where it came from.</summary>
sealed class UdpEcho : IDisposable
{
    readonly Socket socket;
    int received;

    public UdpEcho(NetworkNamespace where, IPEndPoint at)
    {
        this.socket = where.NewSocket(at.AddressFamily, SocketType.Dgram);
        this.socket.ReceiveBufferSize = 4 << 20;
        if (at.AddressFamily == AddressFamily.InterNetworkV6)
            this.socket.DualMode = at.Address.Equals(IPAddress.IPv6Any);
        this.socket.Bind(at);
        _ = this.Serve();
    }

    public UdpEcho(NetworkNamespace where, int port)
        : this(where, new IPEndPoint(IPAddress.Loopback, port))
    {
    }

    public int Port => ((IPEndPoint)this.socket.LocalEndPoint!).Port;

    public int Received => this.received;

    public ConcurrentQueue<IPEndPoint> Peers { get; } = new();

    async Task Serve()
    {
        byte[] buffer = new byte[65536];
        EndPoint anybody = new IPEndPoint(this.socket.AddressFamily == AddressFamily.InterNetwork ? IPAddress.Any : IPAddress.IPv6Any, 0);
        while (true)
        {
            try
            {
                SocketReceiveFromResult datagram = await this.socket.ReceiveFromAsync(buffer, SocketFlags.None, anybody);
                Interlocked.Increment(ref this.received);
                this.Peers.Enqueue((IPEndPoint)datagram.RemoteEndPoint);
                await this.socket.SendToAsync(buffer.AsMemory(0, datagram.ReceivedBytes), SocketFlags.None, datagram.RemoteEndPoint);
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

    public void Dispose() => this.socket.CloseForGood();
}
