using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;

namespace Pesto.Tests.Harness;

/// <summary>A client that connects, has an answer to a few bytes and closes, again and again until it is stopped; it counts what went wrong.</summary>
sealed class ConnectLoop : IDisposable
{
    readonly NetworkNamespace _from;
    readonly IPEndPoint _to;
    readonly Thread _thread;
    readonly ConcurrentDictionary<SocketError, int> _failures = new();
    volatile bool _stopped;
    int _made;

    public ConnectLoop(NetworkNamespace from, IPEndPoint to)
    {
        _from = from;
        _to = to;
        // The thread lives in the namespace, so that a connection costs no further thread.
        _thread = new Thread(() => _from.Run(Loop)) { IsBackground = true };
        _thread.Start();
    }

    public ConnectLoop(NetworkNamespace from, int port)
        : this(from, new IPEndPoint(IPAddress.Loopback, port))
    {
    }

    /// <summary>Connections that had their answer.</summary>
    public int Made => _made;

    /// <summary>What went wrong, and how often: none of a forwarder's changes may show here.</summary>
    public string Failures => string.Join(", ", _failures.OrderBy(f => f.Key).Select(f => $"{f.Value} {f.Key}"));

    /// <summary>Waits until so many more connections have been made.</summary>
    public void WaitForMore(int count)
    {
        int goal = _made + count;
        Eventually.True(() => _made >= goal, $"{count} more connections to {_to} (failures: {Failures})");
    }

    bool Loop()
    {
        byte[] question = "ping"u8.ToArray();
        while (!_stopped)
        {
            try
            {
                using Socket socket = new(_to.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true, ReceiveTimeout = 10_000 };
                socket.Connect(_to);
                socket.Exchange(question);
                // Closed by RST after all is said, so that thousands of ports don't stay in TIME_WAIT.
                socket.LingerState = new LingerOption(true, 0);
                Interlocked.Increment(ref _made);
            }
            catch (SocketException e)
            {
                _failures.AddOrUpdate(e.SocketErrorCode, 1, (_, count) => count + 1);
            }
            catch (EndOfStreamException)
            {
                _failures.AddOrUpdate(SocketError.Disconnecting, 1, (_, count) => count + 1);
            }
        }

        return true;
    }

    public void Stop()
    {
        _stopped = true;
        _thread.Join();
    }

    public void Dispose() => Stop();
}

/// <summary>One connection that is never idle: each exchange of a few bytes is timed, so that a forwarder that stops for a while shows.</summary>
sealed class ExchangeLoop : IDisposable
{
    readonly Socket _socket;
    readonly Thread _thread;
    volatile bool _stopped;
    int _made;
    long _longest;

    public ExchangeLoop(Socket connected)
    {
        _socket = connected;
        _thread = new Thread(Loop) { IsBackground = true };
        _thread.Start();
    }

    public int Made => _made;

    /// <summary>The longest exchange since this was asked last.</summary>
    public TimeSpan TakeLongest() => TimeSpan.FromTicks(Interlocked.Exchange(ref _longest, 0));

    public Exception? Failure { get; private set; }

    public void WaitForMore(int count)
    {
        int goal = _made + count;
        Eventually.True(() => _made >= goal || Failure != null, $"{count} more exchanges");
        Assert.Null(Failure);
    }

    void Loop()
    {
        byte[] question = new byte[64];
        Stopwatch watch = new();
        try
        {
            while (!_stopped)
            {
                watch.Restart();
                _socket.Exchange(question);
                long ticks = watch.Elapsed.Ticks;
                if (ticks > Interlocked.Read(ref _longest))
                    Interlocked.Exchange(ref _longest, ticks);
                Interlocked.Increment(ref _made);
            }
        }
        catch (Exception e) when (e is SocketException or EndOfStreamException or ObjectDisposedException)
        {
            Failure = e;
        }
    }

    public void Dispose()
    {
        _stopped = true;
        _thread.Join();
        _socket.Dispose();
    }
}
