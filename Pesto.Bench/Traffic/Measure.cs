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
    readonly long begin = Stopwatch.GetTimestamp() + (long)(warmUp * 1e9);
    readonly Histogram histogram = new();
    long from;

    public Outcome Outcome { get; } = new();

    public bool Running { get; private set; }

    /// <summary>Starts the measurement when it is time; false when it is over.</summary>
    /// <param name="warm">Whether the traffic is such as it will be: the warm-up waits for it.</param>
    public bool GoesOn(long now, bool warm = true)
    {
        if (this.Running)
            return now - this.from < (long)(seconds * 1e9);
        if (warm && now >= this.begin)
        {
            if (announced)
                Console.WriteLine("begin");
            this.Running = true;
            this.from = Stopwatch.GetTimestamp();
        }

        return true;
    }

    /// <summary>Counts an exchange, if it is within the measured time.</summary>
    public void Exchanged(long started, long now, int bytes)
    {
        if (!this.Running)
            return;
        this.Outcome.Count++;
        this.Outcome.Bytes += bytes;
        this.histogram.Add(now - started);
    }

    public int End()
    {
        this.Outcome.Seconds = this.Running ? (Stopwatch.GetTimestamp() - this.from) / 1e9 : 0;
        if (announced)
            Console.WriteLine("end");
        this.Outcome.Median = this.histogram.Quantile(0.5) / 1e3;
        this.Outcome.P99 = this.histogram.Quantile(0.99) / 1e3;
        this.Outcome.Longest = this.histogram.Longest / 1e3;
        Console.WriteLine(this.Outcome.ToJson());
        // Connections stay until all that is of interest was looked at.
        if (announced)
            _ = Console.ReadLine();
        return this.Outcome.Error == null ? 0 : 1;
    }
}
