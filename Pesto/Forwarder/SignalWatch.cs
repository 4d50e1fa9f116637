using System.Buffers.Binary;
using Pesto.Linux;

namespace Pesto.Forwarder;

/// <summary>Takes the signals that the launcher had blocked, as events of the loop: end, print counters.</summary>
public sealed class SignalWatch : IEventHandler
{
    const int RecordSize = 128;

    readonly Loop loop;
    readonly Statistics statistics;
    readonly int fd;

    public SignalWatch(Loop loop, Statistics statistics)
    {
        this.loop = loop;
        this.statistics = statistics;
        this.fd = Processes.SignalDescriptor(Launch.Signals).OrThrow("watching for signals");
        loop.Epoll.Watch(this.fd, Events.In, new EventKey(loop.AddHandler(this), 0, 0).Word).OrThrow("watching for signals");
    }

    /// <summary>The number of the signal that ended the loop.</summary>
    public int Last { get; private set; }

    public void OnEvents(EventKey key, Events events)
    {
        Span<byte> record = stackalloc byte[RecordSize];
        while (Descriptors.Read(this.fd, record) is { Ok: true, Value: RecordSize })
        {
            int signal = BinaryPrimitives.ReadInt32LittleEndian(record);
            if (signal == Processes.User1)
            {
                this.statistics.Print();
            }
            else if (signal is Processes.Terminate or Processes.Interrupt)
            {
                this.Last = signal;
                this.loop.Stop();
            }
        }
    }
}
