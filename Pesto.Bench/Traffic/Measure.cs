using System.Diagnostics;
using System.Text.Json;

namespace Pesto.Bench.Traffic;

/// <summary>What the near end of the traffic saw during its measurement; durations of exchanges in microseconds.</summary>
public sealed record Outcome
{
    /// <summary>Exchanges or connections completed, or datagrams sent.</summary>
    public long Count { get; set; }

    /// <summary>Bytes received by the near end.</summary>
    public long Bytes { get; set; }

    public double Seconds { get; set; }

    public double Median { get; set; }

    public double P99 { get; set; }

    public double Longest { get; set; }

    public long Attempts { get; set; }

    /// <summary>Connections refused, reset, and without an answer for seconds; datagrams lost.</summary>
    public long Refused { get; set; }

    public long Reset { get; set; }

    public long Stalled { get; set; }

    public long Lost { get; set; }

    /// <summary>What made the result worthless, or null.</summary>
    public string? Error { get; set; }

    public string ToJson() => JsonSerializer.Serialize(this, JsonSerializerOptions.Web);

    public static Outcome FromJson(string text) => JsonSerializer.Deserialize<Outcome>(text, JsonSerializerOptions.Web)!;
}

/// <summary>
/// The time that counts: after a warm-up, for so many seconds. Prints "begin" and "end" at its edges, so that who started this
/// process can look at the forwarder just then, and last the outcome as JSON.
/// </summary>
sealed class Measure(double warmUp, double seconds, bool announced = true)
{
    readonly long _begin = Stopwatch.GetTimestamp() + (long)(warmUp * 1e9);
    readonly Histogram _histogram = new();
    long _from;

    public Outcome Outcome { get; } = new();

    public bool Running { get; private set; }

    /// <summary>Starts the measurement when it is time; false when it is over.</summary>
    /// <param name="warm">Whether the traffic is such as it will be: the warm-up waits for it.</param>
    public bool GoesOn(long now, bool warm = true)
    {
        if (Running)
            return now - _from < (long)(seconds * 1e9);
        if (warm && now >= _begin)
        {
            if (announced)
                Console.WriteLine("begin");
            Running = true;
            _from = Stopwatch.GetTimestamp();
        }

        return true;
    }

    /// <summary>Counts an exchange, if it is within the measured time.</summary>
    public void Exchanged(long started, long now, int bytes)
    {
        if (!Running)
            return;
        Outcome.Count++;
        Outcome.Bytes += bytes;
        _histogram.Add(now - started);
    }

    public int End()
    {
        Outcome.Seconds = Running ? (Stopwatch.GetTimestamp() - _from) / 1e9 : 0;
        if (announced)
            Console.WriteLine("end");
        Outcome.Median = _histogram.Quantile(0.5) / 1e3;
        Outcome.P99 = _histogram.Quantile(0.99) / 1e3;
        Outcome.Longest = _histogram.Longest / 1e3;
        Console.WriteLine(Outcome.ToJson());
        // Connections stay until all that is of interest was looked at.
        if (announced)
            _ = Console.ReadLine();
        return Outcome.Error == null ? 0 : 1;
    }
}
