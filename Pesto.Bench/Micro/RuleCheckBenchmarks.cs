using BenchmarkDotNet.Attributes;
using Pesto.Rules;

namespace Pesto.Bench.Micro;

public class RuleCheckBenchmarks
{
    Rule[] table = [];
    Rule rule;

    /// <summary>Rules that the table holds already.</summary>
    [Params(1, 16, 254)]
    public int Rules { get; set; }

    [GlobalSetup]
    public void SetUp()
    {
        this.table = ExampleRules.Table(this.Rules);
        this.rule = ExampleRules.Ports(50_000, 1);
    }

    [Benchmark]
    public RuleFault Check() => RuleCheck.Check(in this.rule, ExampleRules.Everything);

    [Benchmark]
    public RuleFault CheckAgainstTable() => RuleCheck.CheckAgainst(this.table, in this.rule, out int _);
}
