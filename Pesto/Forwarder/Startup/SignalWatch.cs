using System.Buffers.Binary;
using Pesto.Forwarder.Loop;
using Pesto.Linux;

namespace Pesto.Forwarder.Startup;

/// <summary>Reads the blocked signals (<see cref="Reexecution.Signals"/>) as events of the loop: SIGTERM and SIGINT end it, SIGUSR1 prints the counters, SIGHUP does nothing.</summary>
public sealed class SignalWatch : IEventHandler
{
    const int RecordSize = 128;

    readonly EventLoop _loop;
    readonly Statistics _statistics;
    readonly int _fd;

    public SignalWatch(EventLoop loop, Statistics statistics)
    {
        _loop = loop;
        _statistics = statistics;
        _fd = Processes.SignalDescriptor(Reexecution.Signals).OrThrow("watching for signals");
        loop.Epoll.Add(_fd, Events.In, new EventKey(loop.AddHandler(this), 0, 0).Word).OrThrow("watching for signals");
    }

    /// <summary>The number of the signal that ended the loop.</summary>
    public int Last { get; private set; }

    public void OnEvents(EventKey key, Events events)
    {
        Span<byte> record = stackalloc byte[RecordSize];
        while (Descriptors.Read(_fd, record) is { Ok: true, Value: RecordSize })
        {
            int signal = BinaryPrimitives.ReadInt32LittleEndian(record);
            if (signal == Processes.SIGUSR1)
            {
                _statistics.Print();
            }
            else if (signal is Processes.SIGTERM or Processes.SIGINT)
            {
                Last = signal;
                _loop.Stop();
            }
        }
    }
}
