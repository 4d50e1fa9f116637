using System.Diagnostics;

namespace Pesto.Tests.Harness;

/// <summary>Waits for what must become true, as long as it takes and no longer: no test sleeps for a time that is long enough on some machines.</summary>
static class Eventually
{
    static readonly TimeSpan Limit = TimeSpan.FromSeconds(20);

    /// <summary>Most of what is waited for is there in a few milliseconds; looking often at what takes longer would only delay it.</summary>
    static TimeSpan BetweenLooks(Stopwatch watch) => TimeSpan.FromMilliseconds(watch.ElapsedMilliseconds < 50 ? 1 : 5);

    public static void True(Func<bool> condition, string what)
    {
        Stopwatch watch = Stopwatch.StartNew();
        while (!condition())
        {
            Assert.True(watch.Elapsed < Limit, $"not within {Limit.TotalSeconds} s: {what}");
            Thread.Sleep(BetweenLooks(watch));
        }
    }

    /// <summary>Waits until it has this value; a failure shows the last one seen.</summary>
    public static void Equal<T>(T expected, Func<T> actual)
    {
        Stopwatch watch = Stopwatch.StartNew();
        T last = actual();
        while (!Equals(expected, last) && watch.Elapsed < Limit)
        {
            Thread.Sleep(BetweenLooks(watch));
            last = actual();
        }

        Assert.Equal(expected, last);
    }
}
