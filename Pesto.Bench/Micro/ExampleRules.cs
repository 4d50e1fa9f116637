using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Bench.Micro;

/// <summary>Tables as containers have them: one port each, that do not conflict.</summary>
static class ExampleRules
{
    public const Capabilities Everything = Capabilities.V4 | Capabilities.V6 | Capabilities.Tcp | Capabilities.Udp | Capabilities.Scan | Capabilities.Interface;

    public static Rule[] Table(int count) => [.. Enumerable.Range(0, count).Select(i => Ports((ushort)(1000 + (i * 10)), 1))];

    public static Rule Ports(ushort first, int count) => new()
    {
        Address = Address.LoopbackV4,
        First = first,
        Last = (ushort)(first + count - 1),
        To = first,
        Protocol = IpProtocol.Tcp,
    };
}
