using BenchmarkDotNet.Attributes;
using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Bench.Micro;

public class WireBenchmarks
{
    readonly byte[] bytes = new byte[Wire.RuleSize * RuleCheck.MostRules];
    Rule[] table = [];

    [Params(1, 255)]
    public int Rules { get; set; }

    [GlobalSetup]
    public void SetUp()
    {
        this.table = ExampleRules.Table(this.Rules);
        this.Write();
    }

    [Benchmark]
    public void Write()
    {
        for (int i = 0; i < this.table.Length; i++)
            Wire.WriteRule(this.bytes.AsSpan(i * Wire.RuleSize), in this.table[i]);
    }

    [Benchmark]
    public int Read()
    {
        int ports = 0;
        for (int i = 0; i < this.table.Length; i++)
            ports += Wire.ReadRule(this.bytes.AsSpan(i * Wire.RuleSize)).Ports;
        return ports;
    }
}
