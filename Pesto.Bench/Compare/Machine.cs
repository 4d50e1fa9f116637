namespace Pesto.Bench.Compare;

/// <summary>What the figures were taken on.</summary>
sealed record Machine(string Processor, int Processors, int MemoryGiB, string Kernel, string Date)
{
    public static Machine This()
    {
        string processor = File.ReadLines("/proc/cpuinfo").FirstOrDefault(line => line.StartsWith("model name", StringComparison.Ordinal))?.Split(':')[1].Trim() ?? "unknown processor";
        int memory = (int)Math.Round(GC.GetGCMemoryInfo().TotalAvailableMemoryBytes / (double)(1 << 30));
        return new(processor, Environment.ProcessorCount, memory, "Linux " + File.ReadAllText("/proc/sys/kernel/osrelease").Trim(), DateTime.Now.ToString("yyyy-MM-dd", null));
    }

    public override string ToString() => $"{this.Processor}, {this.Processors} processors, {this.MemoryGiB} GiB, {this.Kernel}, {this.Date}";
}
