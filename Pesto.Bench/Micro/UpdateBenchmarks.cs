using BenchmarkDotNet.Attributes;
using Pesto.Forwarder.Control;
using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Namespace;
using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Bench.Micro;

/// <summary>A whole update, from its bytes to checked shadow tables.</summary>
public class UpdateBenchmarks
{
    readonly CurrentNamespace side = new();
    byte[] bytes = [];
    Tables tables = new();
    UpdateReader reader = new(new());

    [Params(1, 16, 255)]
    public int Rules { get; set; }

    [GlobalSetup]
    public void SetUp()
    {
        this.tables = new(new Tables.PifEntry(Pif.Host, Pif.HostName, ExampleRules.Everything, this.side, this.side));
        this.reader = new(this.tables);
        this.bytes = new byte[Wire.TableSize + (Wire.RuleSize * this.Rules) + 1];
        Wire.WriteTable(this.bytes, Pif.Host, this.Rules);
        Rule[] rules = ExampleRules.Table(this.Rules);
        for (int i = 0; i < rules.Length; i++)
            Wire.WriteRule(this.bytes.AsSpan(Wire.TableSize + (i * Wire.RuleSize)), in rules[i]);
    }

    [Benchmark]
    public UpdateReader.Progress Receive()
    {
        this.reader.Begin();
        return this.reader.Take(this.bytes, out int _);
    }
}
