namespace Pesto.Bench.Compare;

/// <summary>What one run of one load against one peer gave.</summary>
sealed record Sample
{
    /// <summary>In the load's unit.</summary>
    public double Value { get; init; }

    /// <summary>Processor seconds of the forwarder for each unit of work; null where no process does it.</summary>
    public double? Cpu { get; init; }

    /// <summary>The highest resident size of the forwarder, KiB.</summary>
    public long? PeakKiB { get; init; }

    /// <summary>Duration of an exchange, microseconds.</summary>
    public double? Median { get; init; }

    public double? P99 { get; init; }

    /// <summary>Other figures of this load, by name.</summary>
    public Dictionary<string, double> Others { get; init; } = [];

    /// <summary>Why the run gave nothing, or null.</summary>
    public string? Error { get; init; }
}
