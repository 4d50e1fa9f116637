using Pesto.Linux;

namespace Pesto.Forwarder.Loop;

/// <summary>Takes the events of the descriptors that it watches.</summary>
public interface IEventHandler
{
    void OnEvents(EventKey key, Events events);
}

/// <summary>Has something to do at a time, though no descriptor says so.</summary>
public interface ITimed
{
    /// <summary>When, in milliseconds of <see cref="EventLoop.Now"/>; long.MaxValue for never, 0 for at once.</summary>
    long Deadline { get; }

    /// <summary>Called in every iteration in which the deadline has come, after all events are handled.</summary>
    void OnTime(long now);
}

/// <summary>
/// The event loop. One thread, one epoll descriptor. An iteration waits, hands out the events, and then, with none
/// half-handled, lets everybody whose time has come do a bounded piece of work: flows that had more to move than was
/// fair, commits, time-outs.
/// </summary>
public sealed class EventLoop
{
    const int MostEvents = 512;
    const int MostHandlers = 16;

    readonly Epoll _epoll = new(MostEvents);
    readonly IEventHandler[] _handlers = new IEventHandler[MostHandlers];
    int _handlerCount;
    bool _stopping;

    /// <summary>Milliseconds of the monotonic clock, read once an iteration.</summary>
    public long Now { get; private set; } = Clock.Milliseconds;

    /// <summary>The longest that an iteration has taken, without its waiting, in nanoseconds.</summary>
    public long LongestIteration { get; private set; }

    public Epoll Epoll => _epoll;

    /// <summary>Registers who takes the events whose keys carry the kind that is returned.</summary>
    public int AddHandler(IEventHandler handler)
    {
        _handlers[_handlerCount] = handler;
        return _handlerCount++;
    }

    public void Stop() => _stopping = true;

    /// <summary>Runs until it is stopped.</summary>
    /// <param name="timed">What has something to do at times, in the order in which it is asked.</param>
    public void Run(ReadOnlySpan<ITimed> timed)
    {
        while (!_stopping)
        {
            Result waited = _epoll.Wait(Patience(timed));
            long start = Clock.Nanoseconds;
            Now = start / 1_000_000;
            // EINTR is the only failure that a wait on a valid descriptor has: nothing came.
            int count = waited.Ok ? waited.Value : 0;
            for (int i = 0; i < count; i++)
            {
                EventKey key = new(_epoll.DataAt(i));
                _handlers[key.Kind].OnEvents(key, _epoll.EventsAt(i));
            }

            foreach (ITimed item in timed)
            {
                if (item.Deadline <= Now)
                    item.OnTime(Now);
            }

            LongestIteration = Math.Max(LongestIteration, Clock.Nanoseconds - start);
        }

        _stopping = false;
    }

    int Patience(ReadOnlySpan<ITimed> timed)
    {
        long next = long.MaxValue;
        foreach (ITimed item in timed)
            next = Math.Min(next, item.Deadline);
        if (next == long.MaxValue)
            return -1;
        return (int)Math.Clamp(next - Now, 0, 60_000);
    }
}
