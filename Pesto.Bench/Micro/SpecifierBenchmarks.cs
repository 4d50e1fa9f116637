using BenchmarkDotNet.Attributes;
using Pesto.Rules;

namespace Pesto.Bench.Micro;

public class SpecifierBenchmarks
{
    [Params("8080", "127.0.0.1/8080:80", "[2001:db8::1]/8000-8099:[2001:db8::2]/9000-9099", "80,443,8000-8999,~8100-8199,~8443", "all")]
    public string Text { get; set; } = "";

    [Benchmark]
    public int Parse() => Specifier.Parse(Text, PortOption.TcpIn, ExampleRules.Everything, PortRange.UsualEphemeral).Rules.Count;
}
