using Pesto.Linux;

namespace Pesto.Forwarder;

/// <summary>Takes the events of the descriptors that it watches.</summary>
public interface IEventHandler
{
    void OnEvents(EventKey key, Events events);
}

/// <summary>Has something to do at a time, though no descriptor says so.</summary>
public interface ITimed
{
    /// <summary>When, in milliseconds of <see cref="Loop.Now"/>; long.MaxValue for never, 0 for at once.</summary>
    long Deadline { get; }

    /// <summary>Called in every iteration in which the deadline has come, after all events are handled.</summary>
    void OnTime(long now);
}

/// <summary>
/// The event loop. One thread, one epoll descriptor. An iteration waits, hands out the events, and then, with none
/// half-handled, lets everybody whose time has come do a bounded piece of work: flows that had more to move than was
/// fair, commits, time-outs.
/// </summary>
public sealed class Loop
{
    const int MostEvents = 512;
    const int MostHandlers = 16;

    readonly Epoll epoll = new(MostEvents);
    readonly IEventHandler[] handlers = new IEventHandler[MostHandlers];
    readonly List<ITimed> timed = [];
    int handlerCount;
    bool stopping;

    /// <summary>Milliseconds of the monotonic clock, read once an iteration.</summary>
    public long Now { get; private set; } = Clock.Milliseconds;

    /// <summary>The longest that an iteration has taken, without its waiting, in nanoseconds.</summary>
    public long LongestIteration { get; private set; }

    public Epoll Epoll => this.epoll;

    /// <summary>Registers who takes the events whose keys carry the kind that is returned.</summary>
    public int AddHandler(IEventHandler handler)
    {
        this.handlers[this.handlerCount] = handler;
        return this.handlerCount++;
    }

    public void AddTimed(ITimed item) => this.timed.Add(item);

    public void Stop() => this.stopping = true;

    public void Run()
    {
        while (!this.stopping)
        {
            Result waited = this.epoll.Wait(this.Patience());
            long start = Clock.Nanoseconds;
            this.Now = start / 1_000_000;
            // EINTR is the only failure that a wait on a valid descriptor has: nothing came.
            int count = waited.Ok ? waited.Value : 0;
            for (int i = 0; i < count; i++)
            {
                EventKey key = new(this.epoll.DataAt(i));
                this.handlers[key.Kind].OnEvents(key, this.epoll.EventsAt(i));
            }

            foreach (ITimed item in this.timed)
            {
                if (item.Deadline <= this.Now)
                    item.OnTime(this.Now);
            }

            this.LongestIteration = Math.Max(this.LongestIteration, Clock.Nanoseconds - start);
        }

        this.stopping = false;
    }

    int Patience()
    {
        long next = long.MaxValue;
        foreach (ITimed item in this.timed)
            next = Math.Min(next, item.Deadline);
        if (next == long.MaxValue)
            return -1;
        return (int)Math.Clamp(next - this.Now, 0, 60_000);
    }
}
