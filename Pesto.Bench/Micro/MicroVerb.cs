using BenchmarkDotNet.Configs;
using BenchmarkDotNet.Diagnosers;
using BenchmarkDotNet.Jobs;
using BenchmarkDotNet.Running;
using BenchmarkDotNet.Toolchains.InProcess.Emit;
using Perfolizer.Horology;
using Pesto.Bench.Compare;

namespace Pesto.Bench.Micro;

/// <summary>
/// <c>micro</c>: the pieces that are nothing but computing, by BenchmarkDotNet, with what they allocate. They run in this process
/// and its runtime, not in the native program: to be compared with each other and with themselves, from one change to the next.
/// </summary>
static class MicroVerb
{
    public static int Run(string[] args)
    {
        Job job = Job.Default.WithToolchain(InProcessEmitToolchain.Instance).WithWarmupCount(3).WithIterationCount(10).WithIterationTime(TimeInterval.FromMilliseconds(150));
        IConfig config = DefaultConfig.Instance.AddJob(job).AddDiagnoser(MemoryDiagnoser.Default);
        string[] filter = args.Length > 1 && !args[1].StartsWith('-') ? ["--filter", $"*{args[1]}*", .. args[2..]] : ["--filter", "*", .. args[1..]];
        // A commit opens sockets: in a network namespace of its own no port is taken.
        return Isolation.Run(args, () => BenchmarkSwitcher.FromAssembly(typeof(MicroVerb).Assembly).Run(filter, config)
            .All(summary => !summary.HasCriticalValidationErrors && summary.Reports.All(report => report.Success)) ? 0 : 1);
    }
}
