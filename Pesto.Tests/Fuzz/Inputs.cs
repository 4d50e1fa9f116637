using System.Diagnostics;
using System.Globalization;

namespace Pesto.Tests.Fuzz;

/// <summary>
/// Input after input for something that reads what others send, each from a number of its own, so that one that fails can be had again:
/// PESTO_FUZZ is how many, PESTO_FUZZ_SEED what they come from, PESTO_FUZZ_FROM the first.
/// </summary>
sealed class Inputs(ITestOutputHelper output, int usually)
{
    static readonly TimeSpan LongestOne = TimeSpan.FromSeconds(2);

    readonly long _count = Number("PESTO_FUZZ", usually);
    readonly long _seed = Number("PESTO_FUZZ_SEED", 20261122);
    readonly long _first = Number("PESTO_FUZZ_FROM", 0);

    /// <param name="one">Tries an input, given chance; throws if the reader does what it must not.</param>
    /// <param name="mostAllocated">Bytes that one may leave to the garbage collector.</param>
    public void Try(Trial one, long mostAllocated = 1 << 20)
    {
        output.WriteLine($"{_count} inputs from seed {_seed}");
        Stopwatch watch = Stopwatch.StartNew();
        for (long i = _first; i < _first + _count; i++)
        {
            Chance chance = new((ulong)_seed * 0x9e3779b97f4a7c15 + (ulong)i * 0xd1b54a32d192ed03);
            for (int warmUp = 0; warmUp < 4; warmUp++)
                chance.Next();
            long allocated = GC.GetAllocatedBytesForCurrentThread();
            TimeSpan start = watch.Elapsed;
            try
            {
                one(ref chance);
            }
            catch (Exception e)
            {
                throw new InvalidOperationException($"input {i}, to have it again: PESTO_FUZZ=1 PESTO_FUZZ_SEED={_seed} PESTO_FUZZ_FROM={i}: {e.Message}", e);
            }

            allocated = GC.GetAllocatedBytesForCurrentThread() - allocated;
            // The first pays for what is made once.
            Assert.True(allocated < mostAllocated || i == _first, $"input {i} of seed {_seed} allocates {allocated} bytes");
            // One that takes long may have been unlucky with the machine: then it is quick the next time.
            if (watch.Elapsed - start > LongestOne)
                output.WriteLine($"input {i} took {(watch.Elapsed - start).TotalSeconds} s");
        }

        output.WriteLine($"{_count / watch.Elapsed.TotalSeconds:F0} inputs a second");
    }

    public delegate void Trial(ref Chance chance);

    static long Number(string variable, long otherwise) =>
        long.TryParse(Environment.GetEnvironmentVariable(variable), NumberStyles.None, CultureInfo.InvariantCulture, out long number) ? number : otherwise;
}
