using BenchmarkDotNet.Attributes;
using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Bench.Micro;

public class WireBenchmarks
{
    readonly byte[] _bytes = new byte[Wire.RuleSize * RuleCheck.MostRules];
    Rule[] _table = [];

    [Params(1, 255)]
    public int Rules { get; set; }

    [GlobalSetup]
    public void SetUp()
    {
        _table = ExampleRules.Table(Rules);
        Write();
    }

    [Benchmark]
    public void Write()
    {
        for (int i = 0; i < _table.Length; i++)
            Wire.WriteRule(_bytes.AsSpan(i * Wire.RuleSize), in _table[i]);
    }

    [Benchmark]
    public int Read()
    {
        int ports = 0;
        for (int i = 0; i < _table.Length; i++)
            ports += Wire.ReadRule(_bytes.AsSpan(i * Wire.RuleSize)).Ports;
        return ports;
    }
}
