using Pesto.Forwarder.Reporting;
using Pesto.Linux;

namespace Pesto.Forwarder.Loop;

/// <summary>
/// What happens when the system has no more to give: descriptors, memory, ports. It is a state and not a crash: new
/// connections wait in the kernel, existing ones go on, one line says so, and it is tried again when something was
/// given back, or after a while.
/// </summary>
public sealed class Backpressure : ITimed
{
    const long RetryMilliseconds = 100;
    const long SayAgainMilliseconds = 10_000;

    readonly EventLoop _loop;
    long _retryAt = long.MaxValue;
    long _saidAt = long.MinValue / 2;

    public Backpressure(EventLoop loop)
    {
        _loop = loop;
    }

    /// <summary>True while new connections are left waiting in the kernel.</summary>
    public bool Full => _retryAt != long.MaxValue;

    /// <summary>Called when accepting may go on.</summary>
    public Action? Recovered { get; set; }

    /// <summary>Says what to add to the line: how much there is of everything.</summary>
    public Func<string>? Numbers { get; set; }

    /// <summary>Called when a limit is reached: gives back what can be spared.</summary>
    public Action? MakeRoom { get; set; }

    public bool IsExhaustion(Errno error) => error is Errno.EMFILE or Errno.ENFILE or Errno.ENOBUFS or Errno.ENOMEM or Errno.ENOSPC;

    public void Reached(string what, Errno error)
    {
        _retryAt = _loop.Now + RetryMilliseconds;
        Say(what, error, "new connections wait, existing ones go on");
        MakeRoom?.Invoke();
    }

    /// <summary>A limit that is met by ending the UDP flow that has been idle longest: nothing has to wait.</summary>
    public void MadeRoom(string what, Errno error) => Say(what, error, "the UDP flows that are idle longest make room for new ones");

    void Say(string what, Errno error, string consequence)
    {
        if (_loop.Now - _saidAt < SayAgainMilliseconds)
            return;
        _saidAt = _loop.Now;
        string reason = error == Errno.None ? "none left" : error.Text();
        Log.Warn($"limit reached: {what}: {reason} ({Numbers?.Invoke()}); {consequence}");
    }

    /// <summary>Something was given back.</summary>
    public void Released()
    {
        if (Full)
            _retryAt = 0;
    }

    public long Deadline => _retryAt;

    public void OnTime(long now)
    {
        _retryAt = long.MaxValue;
        Recovered?.Invoke();
    }
}
