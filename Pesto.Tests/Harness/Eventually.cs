using System.Diagnostics;

namespace Pesto.Tests.Harness;

/// <summary>Waits for what must become true, as long as it takes and no longer: no test sleeps for a time that is long enough on some machines.</summary>
static class Eventually
{
    static readonly TimeSpan Limit = TimeSpan.FromSeconds(20);
    static readonly TimeSpan BetweenLooks = TimeSpan.FromMilliseconds(5);

    public static void True(Func<bool> condition, string what)
    {
        Stopwatch watch = Stopwatch.StartNew();
        while (!condition())
        {
            Assert.True(watch.Elapsed < Limit, $"not within {Limit.TotalSeconds} s: {what}");
            Thread.Sleep(BetweenLooks);
        }
    }

    /// <summary>Waits until it has this value; a failure shows the last one seen.</summary>
    public static void Equal<T>(T expected, Func<T> actual)
    {
        Stopwatch watch = Stopwatch.StartNew();
        T last = actual();
        while (!Equals(expected, last) && watch.Elapsed < Limit)
        {
            Thread.Sleep(BetweenLooks);
            last = actual();
        }

        Assert.Equal(expected, last);
    }
}
