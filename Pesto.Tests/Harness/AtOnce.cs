using System.Collections.Concurrent;

namespace Pesto.Tests.Harness;

/// <summary>Does things at the same time, each on a thread of its own.</summary>
static class AtOnce
{
    /// <summary>Returns when all are done; fails with what failed in any of them.</summary>
    public static void Run(params Action[] actions)
    {
        ConcurrentQueue<Exception> failures = new();
        Thread[] threads = [.. actions.Select(action => new Thread(() =>
        {
            try
            {
                action();
            }
            catch (Exception e)
            {
                failures.Enqueue(e);
            }
        }))];
        foreach (Thread thread in threads)
            thread.Start();
        foreach (Thread thread in threads)
            thread.Join();
        if (!failures.IsEmpty)
            throw new AggregateException(failures);
    }

    public static void Run(int count, Action<int> action) => Run([.. Enumerable.Range(0, count).Select<int, Action>(i => () => action(i))]);
}
