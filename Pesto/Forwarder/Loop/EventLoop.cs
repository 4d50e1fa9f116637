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

    /// <summary>Called in every iteration in which the deadline has come, after the events: does a piece of work that takes a millisecond or two.</summary>
    void OnTime(long now);
}

/// <summary>
/// The event loop. One thread, one epoll descriptor. An iteration:
/// <list type="number">
/// <item>waits for events, until the first deadline of a timer at most;</item>
/// <item>hands them out in the kernel's order for <see cref="EventShare"/>: those that are left come first in the next iteration, which then
/// does not wait;</item>
/// <item>calls each timer whose deadline has come, in the order in which <see cref="Run"/> is given them. No event is half-handled then.</item>
/// </list>
/// </summary>
public sealed class EventLoop
{
    /// <summary>How long events are handed out in one iteration, in nanoseconds.</summary>
    const long EventShare = 2_000_000;

    /// <summary>The clock is read once for so many events: a power of two.</summary>
    const int EventsForOneLook = 4;

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

    /// <summary>How often events have been fetched: those of one number are as old as each other.</summary>
    public long Waits { get; private set; }

    public Epoll Epoll => _epoll;

    /// <summary>Registers a handler; it gets the events whose keys have the kind that is returned.</summary>
    public int AddHandler(IEventHandler handler)
    {
        _handlers[_handlerCount] = handler;
        return _handlerCount++;
    }

    public void Stop() => _stopping = true;

    /// <summary>Runs until it is stopped.</summary>
    /// <param name="timers">In the order in which they are called.</param>
    public void Run(params ReadOnlySpan<ITimed> timers)
    {
        int count = 0, next = 0;
        while (!_stopping)
        {
            if (next == count)
            {
                Result waited = _epoll.Wait(Timeout(timers));
                // EINTR is the only failure that a wait on a valid descriptor has: nothing came.
                count = waited.Ok ? waited.Value : 0;
                next = 0;
                Waits++;
            }

            long start = Clock.Nanoseconds;
            Now = start / 1_000_000;
            while (next < count)
            {
                EventKey key = new(_epoll.DataAt(next));
                _handlers[key.Kind].OnEvents(key, _epoll.EventsAt(next));
                next++;
                if (next % EventsForOneLook == 0 && Clock.Nanoseconds - start >= EventShare)
                    break;
            }

            foreach (ITimed timer in timers)
            {
                if (timer.Deadline <= Now)
                    timer.OnTime(Now);
            }

            LongestIteration = Math.Max(LongestIteration, Clock.Nanoseconds - start);
        }

        _stopping = false;
    }

    /// <summary>Milliseconds until the first deadline, as epoll_wait(2) has it: -1 for never.</summary>
    int Timeout(ReadOnlySpan<ITimed> timers)
    {
        long next = long.MaxValue;
        foreach (ITimed timer in timers)
            next = Math.Min(next, timer.Deadline);
        if (next == long.MaxValue)
            return -1;
        return (int)Math.Clamp(next - Now, 0, 60_000);
    }
}
