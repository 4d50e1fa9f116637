using BenchmarkDotNet.Attributes;
using Pesto.Rules;

namespace Pesto.Bench.Micro;

public class RuleCheckBenchmarks
{
    Rule[] _table = [];
    Rule _rule;

    /// <summary>Rules that the table holds already.</summary>
    [Params(1, 16, 254)]
    public int Rules { get; set; }

    [GlobalSetup]
    public void SetUp()
    {
        _table = ExampleRules.Table(Rules);
        _rule = ExampleRules.Ports(50_000, 1);
    }

    [Benchmark]
    public RuleFault Check() => RuleCheck.Check(in _rule, ExampleRules.Everything);

    [Benchmark]
    public RuleFault CheckAgainstTable() => RuleCheck.CheckAgainst(_table, in _rule, out int _);
}
