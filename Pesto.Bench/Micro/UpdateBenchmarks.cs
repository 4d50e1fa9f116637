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
    readonly CurrentNamespace _side = new();
    byte[] _bytes = [];
    Tables _tables = new();
    UpdateReader _reader = new(new());

    [Params(1, 16, 255)]
    public int Rules { get; set; }

    [GlobalSetup]
    public void SetUp()
    {
        _tables = new(new Tables.PifEntry(Pif.Host, Pif.HostName, ExampleRules.Everything, _side, _side));
        _reader = new(_tables);
        _bytes = new byte[Wire.TableSize + (Wire.RuleSize * Rules) + 1];
        Wire.WriteTable(_bytes, Pif.Host, Rules);
        Rule[] rules = ExampleRules.Table(Rules);
        for (int i = 0; i < rules.Length; i++)
            Wire.WriteRule(_bytes.AsSpan(Wire.TableSize + (i * Wire.RuleSize)), in rules[i]);
    }

    [Benchmark]
    public UpdateReader.Progress Receive()
    {
        _reader.Begin();
        return _reader.Take(_bytes, out int _);
    }
}
