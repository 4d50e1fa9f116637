using System.Numerics;

namespace Pesto.Bench.Traffic;

/// <summary>Counts durations in buckets that are 1.6% wide or less, so that quantiles need neither a list nor allocation.</summary>
sealed class Histogram
{
    const int Fine = 6;
    readonly long[] _buckets = new long[64 << Fine];
    long _count;

    public long Longest { get; private set; }

    public void Add(long nanoseconds)
    {
        ulong value = (ulong)Math.Max(0, nanoseconds);
        _buckets[Bucket(value)]++;
        _count++;
        if (nanoseconds > Longest)
            Longest = nanoseconds;
    }

    public void Clear()
    {
        Array.Clear(_buckets);
        _count = 0;
        Longest = 0;
    }

    /// <summary>The duration, in nanoseconds, that this share of all does not exceed; 0 when there are none.</summary>
    public long Quantile(double share)
    {
        long wanted = (long)Math.Ceiling(share * _count);
        long seen = 0;
        for (int i = 0; i < _buckets.Length; i++)
        {
            seen += _buckets[i];
            if (seen >= wanted && seen > 0)
                return Middle(i);
        }

        return 0;
    }

    // Values below 64 have a bucket each; above, every doubling is cut into 64.
    static int Bucket(ulong value)
    {
        int shift = Math.Max(0, BitOperations.Log2(value | 1) - Fine);
        return (shift << Fine) + (int)(value >> shift);
    }

    static long Middle(int bucket)
    {
        int shift = Math.Max(0, (bucket >> Fine) - 1);
        long start = (long)(bucket - (shift << Fine)) << shift;
        return start + ((1L << shift) >> 1);
    }
}
