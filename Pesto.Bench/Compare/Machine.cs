using System.Globalization;

namespace Pesto.Bench.Compare;

/// <summary>What the figures were taken on.</summary>
/// <param name="Load">How many processes ran on average in the minute before: others that slow everything down.</param>
sealed record Machine(string Processor, int Processors, int MemoryGiB, string Kernel, string Date, double Load)
{
    /// <summary>Whether something else keeps it busy: then figures say little, and ratios not much more.</summary>
    public bool IsBusy => Load > Processors / 4.0;

    public static Machine This()
    {
        string processor = File.ReadLines("/proc/cpuinfo").FirstOrDefault(line => line.StartsWith("model name", StringComparison.Ordinal))?.Split(':')[1].Trim() ?? "unknown processor";
        int memory = (int)Math.Round(GC.GetGCMemoryInfo().TotalAvailableMemoryBytes / (double)(1 << 30));
        string kernel = "Linux " + File.ReadAllText("/proc/sys/kernel/osrelease").Trim();
        double load = double.Parse(File.ReadAllText("/proc/loadavg").Split(' ')[0], CultureInfo.InvariantCulture);
        return new(processor, Environment.ProcessorCount, memory, kernel, DateTime.Now.ToString("yyyy-MM-dd", null), load);
    }

    public override string ToString() => $"{Processor}, {Processors} processors, {MemoryGiB} GiB, {Kernel}, {Date}{(IsBusy ? $"; busy with other things: load {Load}" : "")}";
}
