using Pesto.Forwarder.Reporting;
using Pesto.Linux;

namespace Pesto.Forwarder.Loop;

/// <summary>
/// Says that the system, or the budget, has no more to give: descriptors, memory, ports. It is a state and not a failure, and may last:
/// one line in ten seconds says so, with how much there is of everything.
/// </summary>
public sealed class LimitLog
{
    const long SayAgainMilliseconds = 10_000;

    readonly EventLoop _loop;
    readonly Counters _counters;
    readonly DescriptorBudget _budget;
    long _saidAt = long.MinValue / 2;

    public LimitLog(EventLoop loop, Counters counters, DescriptorBudget budget)
    {
        _loop = loop;
        _counters = counters;
        _budget = budget;
    }

    /// <summary>Whether an error means that there is no more of something, and not that the call was wrong.</summary>
    public static bool IsExhaustion(Errno error) => error is Errno.EMFILE or Errno.ENFILE or Errno.ENOBUFS or Errno.ENOMEM or Errno.ENOSPC;

    /// <summary>A limit because of which connections are left in the kernel's queue for a while.</summary>
    public void Reached(string what, Errno error) => Say(what, error, "new connections wait, existing ones go on");

    /// <summary>A limit that is met by ending a UDP flow: nothing has to wait.</summary>
    public void MadeRoom(string what, Errno error) => Say(what, error, "UDP flows without a reply, or idle longest, make room for new ones");

    void Say(string what, Errno error, string consequence)
    {
        if (_loop.Now - _saidAt < SayAgainMilliseconds)
            return;
        _saidAt = _loop.Now;
        string reason = error == Errno.None ? "none left" : error.Text();
        Log.Warn($"limit reached: {what}: {reason} ({_counters.TcpOpen} TCP flows, {_counters.UdpOpen} UDP flows of {_budget.Most(DescriptorUse.UdpFlow)}, {_budget.Listening} listening sockets, {_budget.Descriptors} descriptors); {consequence}");
    }
}
