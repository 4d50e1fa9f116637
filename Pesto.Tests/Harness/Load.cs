using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;

namespace Pesto.Tests.Harness;

/// <summary>A client that connects, has an answer to a few bytes and closes, again and again until it is stopped; it counts what went wrong.</summary>
sealed class ConnectLoop : IDisposable
{
    readonly NetworkNamespace from;
    readonly IPEndPoint to;
    readonly Thread thread;
    readonly ConcurrentDictionary<SocketError, int> failures = new();
    volatile bool stopped;
    int made;

    public ConnectLoop(NetworkNamespace from, IPEndPoint to)
    {
        this.from = from;
        this.to = to;
        // The thread lives in the namespace, so that a connection costs no further thread.
        this.thread = new Thread(() => this.from.Run(this.Loop)) { IsBackground = true };
        this.thread.Start();
    }

    public ConnectLoop(NetworkNamespace from, int port)
        : this(from, new IPEndPoint(IPAddress.Loopback, port))
    {
    }

    /// <summary>Connections that had their answer.</summary>
    public int Made => this.made;

    /// <summary>What went wrong, and how often: none of a forwarder's changes may show here.</summary>
    public string Failures => string.Join(", ", this.failures.OrderBy(f => f.Key).Select(f => $"{f.Value} {f.Key}"));

    /// <summary>Waits until so many more connections have been made.</summary>
    public void WaitForMore(int count)
    {
        int goal = this.made + count;
        Eventually.True(() => this.made >= goal, $"{count} more connections to {this.to} (failures: {this.Failures})");
    }

    bool Loop()
    {
        byte[] question = "ping"u8.ToArray();
        while (!this.stopped)
        {
            try
            {
                using Socket socket = new(this.to.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true, ReceiveTimeout = 10_000 };
                socket.Connect(this.to);
                socket.Exchange(question);
                // Closed by RST after all is said, so that thousands of ports don't stay in TIME_WAIT.
                socket.LingerState = new LingerOption(true, 0);
                Interlocked.Increment(ref this.made);
            }
            catch (SocketException e)
            {
                this.failures.AddOrUpdate(e.SocketErrorCode, 1, (_, count) => count + 1);
            }
            catch (EndOfStreamException)
            {
                this.failures.AddOrUpdate(SocketError.Disconnecting, 1, (_, count) => count + 1);
            }
        }

        return true;
    }

    public void Stop()
    {
        this.stopped = true;
        this.thread.Join();
    }

    public void Dispose() => this.Stop();
}

/// <summary>One connection that is never idle: each exchange of a few bytes is timed, so that a forwarder that stops for a while shows.</summary>
sealed class ExchangeLoop : IDisposable
{
    readonly Socket socket;
    readonly Thread thread;
    volatile bool stopped;
    int made;
    long longest;

    public ExchangeLoop(Socket connected)
    {
        this.socket = connected;
        this.thread = new Thread(this.Loop) { IsBackground = true };
        this.thread.Start();
    }

    public int Made => this.made;

    /// <summary>The longest exchange since this was asked last.</summary>
    public TimeSpan TakeLongest() => TimeSpan.FromTicks(Interlocked.Exchange(ref this.longest, 0));

    public Exception? Failure { get; private set; }

    public void WaitForMore(int count)
    {
        int goal = this.made + count;
        Eventually.True(() => this.made >= goal || this.Failure != null, $"{count} more exchanges");
        Assert.Null(this.Failure);
    }

    void Loop()
    {
        byte[] question = new byte[64];
        Stopwatch watch = new();
        try
        {
            while (!this.stopped)
            {
                watch.Restart();
                this.socket.Exchange(question);
                long ticks = watch.Elapsed.Ticks;
                if (ticks > Interlocked.Read(ref this.longest))
                    Interlocked.Exchange(ref this.longest, ticks);
                Interlocked.Increment(ref this.made);
            }
        }
        catch (Exception e) when (e is SocketException or EndOfStreamException or ObjectDisposedException)
        {
            this.Failure = e;
        }
    }

    public void Dispose()
    {
        this.stopped = true;
        this.thread.Join();
        this.socket.Dispose();
    }
}
