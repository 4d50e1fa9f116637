using BenchmarkDotNet.Attributes;
using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Loop;
using Pesto.Forwarder.Namespace;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Bench.Micro;

/// <summary>
/// Planning a commit that changes nothing: for every port that the new tables want, the socket is found that is there. Once by
/// walking all sockets, and once by the forwarder's table (<see cref="Listeners"/>), which hashes by protocol and port.
/// </summary>
public class SocketMatchBenchmarks
{
    const int MostRules = 255;

    readonly List<(int Pif, Rule Rule)> _wanted = [];
    Listeners _listeners = null!;

    /// <summary>Listening sockets, and as many _wanted: a port for each rule up to 2 x 255 rules, ranges of ports above.</summary>
    [Params(10, 255, 510, 18_000)]
    public int Sockets { get; set; }

    [GlobalSetup]
    public void Prepare()
    {
        _listeners = new(new DescriptorBudget((2 * Sockets) + 1000));
        _wanted.Clear();
        int rules = Math.Min(Sockets, 2 * MostRules), ports = Sockets / rules;
        for (int i = 0; i < rules; i++)
        {
            int first = 1000 + (i * ports);
            int last = i == rules - 1 ? 1000 + Sockets - 1 : first + ports - 1;
            Rule rule = new() { Address = Address.AnyV4, First = (ushort)first, Last = (ushort)last, To = (ushort)first, Protocol = IpProtocol.Tcp };
            int pif = i / MostRules;
            _wanted.Add((pif, rule));
            for (int port = first; port <= last; port++)
            {
                ListenRequest order = new() { Local = rule.At((ushort)port) };
                _listeners.Add(pif, in order, DescriptorUse.ListeningExplicit);
            }
        }
    }

    [Benchmark(Baseline = true)]
    public int Linear()
    {
        int found = 0;
        foreach ((int pif, Rule rule) in _wanted)
        {
            for (int port = rule.First; port <= rule.Last; port++)
                found += FindLinearly(pif, in rule, (ushort)port) >= 0 ? 1 : 0;
        }

        return found;
    }

    [Benchmark]
    public int Hashed()
    {
        int found = 0;
        foreach ((int pif, Rule rule) in _wanted)
        {
            for (int port = rule.First; port <= rule.Last; port++)
                found += _listeners.Find(pif, rule.At((ushort)port)) >= 0 ? 1 : 0;
        }

        return found;
    }

    unsafe int FindLinearly(int pif, in Rule rule, ushort port)
    {
        for (int i = 0; i < _listeners.High; i++)
        {
            Listeners.Listener* listener = _listeners[i];
            if (listener->Pif == pif && listener->Local == rule.At(port))
                return i;
        }

        return -1;
    }
}
