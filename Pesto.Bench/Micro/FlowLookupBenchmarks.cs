using BenchmarkDotNet.Attributes;
using Pesto.Forwarder.Loop;
using Pesto.Forwarder.Udp;
using Pesto.Linux;

namespace Pesto.Bench.Micro;

/// <summary>From an event's data word to a flow, and from a datagram's addresses to one, in random order.</summary>
public class FlowLookupBenchmarks
{
    const int Lookups = 4096;
    readonly ulong[] _words = new ulong[Lookups];
    readonly UdpFlowKey[] _keys = new UdpFlowKey[Lookups];
    Slots<UdpFlow> _slots = new(1);
    UdpFlowTable _table = new(1, 1, 0, 0);

    [Params(1_000, 10_000)]
    public int Flows { get; set; }

    [GlobalSetup]
    public void SetUp()
    {
        _slots = new(Flows);
        _table = new(Flows, 1, 0, 0);
        for (int i = 0; i < Flows; i++)
        {
            _slots.Take();
            UdpFlowKey key = Key(i);
            _table.Add(in key, key.ClientAddress, default, listener: 0, now: 0);
        }

        Random random = new(1);
        for (int i = 0; i < Lookups; i++)
        {
            int flow = random.Next(Flows);
            _words[i] = new EventKey(1, flow, _slots.Generation(flow)).Word;
            _keys[i] = Key(flow);
        }
    }

    static UdpFlowKey Key(int flow) => new(Address.LoopbackV4, Address.LoopbackV4, 0, (ushort)(30_000 + flow), 8080, 0);

    [Benchmark(OperationsPerInvoke = Lookups)]
    public unsafe long ByEvent()
    {
        long sum = 0;
        foreach (ulong word in _words)
        {
            EventKey key = new(word);
            if (key.IsOf(_slots.Generation(key.Index)))
                sum += _slots[key.Index]->Moved;
        }

        return sum;
    }

    [Benchmark(OperationsPerInvoke = Lookups)]
    public long ByAddresses()
    {
        long sum = 0;
        foreach (ref readonly UdpFlowKey key in _keys.AsSpan())
            sum += _table.Find(in key);
        return sum;
    }
}
