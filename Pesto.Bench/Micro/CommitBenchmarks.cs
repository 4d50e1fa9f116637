using BenchmarkDotNet.Attributes;
using Pesto.Forwarder.Accepting;
using Pesto.Forwarder.Commit;
using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Loop;
using Pesto.Forwarder.Namespace;
using Pesto.Forwarder.Reporting;
using Pesto.Forwarder.Tcp;
using Pesto.Forwarder.Udp;
using Pesto.Linux;
using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Bench.Micro;

/// <summary>
/// A commit without traffic, from start to end, on real listening sockets. One that keeps all of them is planning and nothing else;
/// one that moves half of them shows what opening and closing adds.
/// </summary>
public class CommitBenchmarks
{
    const ushort First = 10_000;
    Tables _tables = new();
    Transaction? _transaction;
    bool _shifted;

    /// <summary>Listening sockets.</summary>
    [Params(10, 1_000, 8_000)]
    public int Sockets { get; set; }

    [GlobalSetup]
    public void SetUp()
    {
        CurrentNamespace side = new();
        Counters counters = new();
        EventLoop loop = new();
        DescriptorBudget budget = new(8 * Sockets + 1000);
        LimitLog limits = new(loop, counters, budget);
        Listeners listeners = new(budget);
        PipePool pipes = new(budget);
        TcpFlows flows = new(loop, counters, limits, budget, listeners, pipes, default, 0);
        _tables = new(new Tables.PifEntry(Pif.Host, Pif.HostName, ExampleRules.Everything, side, side));
        Targets targets = new(Address.LoopbackV4, Address.LoopbackV6);
        UdpFlows udp = new(loop, counters, limits, budget, _tables, listeners, targets, new(budget.Most(DescriptorUse.UdpFlow), listeners.Capacity, 0, 0));
        Acceptor acceptor = new(loop, _tables, listeners, flows, udp, new(budget, pipes, udp), limits, budget, targets, counters);
        PortTakeover takeover = new(_tables, listeners);
        ListenerOpener opener = new(_tables, listeners, takeover, counters, default);
        ListenerCloser closer = new(loop, _tables, listeners, acceptor, takeover, counters);
        _transaction = new(loop, _tables, listeners, acceptor, opener, closer, null, counters);
        Commit(First);
    }

    [GlobalCleanup]
    public void CleanUp()
    {
        _tables.ClearShadow();
        Run();
    }

    [Benchmark]
    public int Keep() => Commit(First);

    [Benchmark]
    public int MoveHalf()
    {
        _shifted = !_shifted;
        return Commit(_shifted ? First + (Sockets / 2) : First);
    }

    int Commit(int first)
    {
        _tables.ClearShadow();
        Rule rule = ExampleRules.Ports((ushort)first, Sockets);
        if (_tables.AddToShadow(0, in rule, out int _) != RuleFault.None)
            throw new InvalidOperationException("the rule is invalid");
        return Run();
    }

    int Run()
    {
        _transaction!.Apply(commit: true, () => { });
        _transaction.RunToEnd();
        return _transaction.FailureCount == 0 ? _transaction.Stolen : throw new InvalidOperationException("a port could not be opened");
    }
}
