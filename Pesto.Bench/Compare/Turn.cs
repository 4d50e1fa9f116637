namespace Pesto.Bench.Compare;

/// <summary>Two comparisons on one machine at the same time would measure each other, so the second waits for its turn.</summary>
static class Turn
{
    const int HalfSecond = 500;

    /// <summary>Waits as long as it takes; null where it can't be known, or for the inner run, whose outer one has the turn.</summary>
    public static IDisposable? Take()
    {
        if (!Isolation.IsOuter)
            return null;
        for (bool said = false; ; Thread.Sleep(HalfSecond))
        {
            try
            {
                // Nobody else may have it open: the kernel forgets the lock when this process ends, in whatever way.
                return new FileStream(Path.Combine(Path.GetTempPath(), "pesto-bench.lock"), FileMode.OpenOrCreate, FileAccess.Read, FileShare.None);
            }
            catch (UnauthorizedAccessException)
            {
                return null;
            }
            catch (IOException)
            {
                if (!said)
                    Console.Error.WriteLine("waiting for another comparison on this machine to end");
                said = true;
            }
        }
    }
}
