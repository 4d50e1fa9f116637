using BenchmarkDotNet.Attributes;
using Pesto.Forwarder;

namespace Pesto.Bench.Micro;

/// <summary>From the data word of an event to the flow that it belongs to, in random order.</summary>
public class FlowLookupBenchmarks
{
    const int Events = 4096;
    readonly ulong[] words = new ulong[Events];
    Slots<Item> slots = new(1);

    public struct Item
    {
        public long First;
        public long Second;
        public long Third;
        public long Fourth;
    }

    [Params(1_000, 10_000)]
    public int Flows { get; set; }

    [GlobalSetup]
    public void SetUp()
    {
        this.slots = new(this.Flows);
        for (int i = 0; i < this.Flows; i++)
            this.slots.Take();
        Random random = new(1);
        for (int i = 0; i < Events; i++)
        {
            int flow = random.Next(this.Flows);
            this.words[i] = new EventKey(1, flow, this.slots.Generation(flow)).Word;
        }
    }

    [Benchmark(OperationsPerInvoke = Events)]
    public unsafe long ByEvent()
    {
        long sum = 0;
        foreach (ulong word in this.words)
        {
            EventKey key = new(word);
            if (key.IsOf(this.slots.Generation(key.Index)))
                sum += this.slots[key.Index]->First;
        }

        return sum;
    }
}
