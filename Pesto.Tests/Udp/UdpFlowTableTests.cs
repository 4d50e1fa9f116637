using Pesto.Forwarder.Udp;
using Pesto.Linux;

namespace Pesto.Tests.Udp;

/// <summary>The table against an ordinary list, with random operations.</summary>
public sealed unsafe class UdpFlowTableTests
{
    const int Capacity = 24, Listeners = 3;
    const long Unreplied = 30, Replied = 100;

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void It_finds_lists_expires_and_sheds_as_a_list_does(int seed)
    {
        Random random = new(seed);
        UdpFlowTable table = new(Capacity, Listeners, Unreplied, Replied);
        List<Model> model = [];
        long now = 1;
        for (int step = 0; step < 50_000; step++)
        {
            now += random.Next(3);
            UdpFlowKey key = new(Address.LoopbackV4, Address.LoopbackV4, 0, (ushort)random.Next(1, 2 * Capacity), 53, 0);
            Model? known = model.Find(flow => flow.Key == key);
            Assert.Equal(known?.Index ?? -1, table.Find(in key));
            int listener = random.Next(Listeners);
            switch (random.Next(8))
            {
                case 0 when known != null:
                    table.Remove(known.Index);
                    model.Remove(known);
                    break;
                case 1 when known != null:
                    table.Move(known.Index, listener);
                    known.Listener = listener;
                    break;
                case 2 or 3 when known != null:
                    table.Replied(known.Index, now);
                    known.Touch(known.Stage == UdpFlowStage.Requested ? UdpFlowStage.Replied : known.Stage, now);
                    break;
                case 4 or 5 when known != null:
                    table.Requested(known.Index, now);
                    known.Touch(known.Stage == UdpFlowStage.Replied ? UdpFlowStage.Conversing : known.Stage, now);
                    break;
                case 6 when known == null:
                    int index = table.Add(in key, key.ClientAddress, default, listener, now);
                    Assert.Equal(model.Count == Capacity, index < 0);
                    if (index >= 0)
                        model.Add(new() { Key = key, Index = index, Listener = listener, Moved = now });
                    break;
                case 7 when table.Expired(now) is int expired and >= 0:
                    Model ended = model.Single(flow => flow.Index == expired);
                    Assert.True(ended.Deadline <= now);
                    table.Remove(expired);
                    model.Remove(ended);
                    break;
            }

            Assert.Equal(model.Count, table.Count);
            Assert.Equal(model.Select(flow => flow.Deadline).DefaultIfEmpty(long.MaxValue).Min(), table.Deadline);
            Assert.Equal(model.Any(flow => flow.Deadline <= now), table.Expired(now) >= 0);
            Model? first = FirstToGo(model);
            // Of two that moved at the same time either may go.
            int toGo = table.FirstToGo();
            Assert.Equal((first?.Stage, first?.Moved), toGo < 0 ? (null, null) : (table[toGo]->Stage, table[toGo]->Moved));
            for (int i = 0; i < Listeners; i++)
                Assert.Equal(model.Where(flow => flow.Listener == i).Select(flow => flow.Index).Order(), Of(table, i).Order());
        }
    }

    static Model? FirstToGo(List<Model> flows)
    {
        Model? unreplied = Oldest(UdpFlowStage.Requested), replied = Oldest(UdpFlowStage.Replied);
        bool isShareTaken = flows.Count(flow => flow.Stage == UdpFlowStage.Requested) >= flows.Count / 4;
        return (isShareTaken ? unreplied : null) ?? replied ?? unreplied ?? Oldest(UdpFlowStage.Conversing);

        Model? Oldest(UdpFlowStage stage) => flows.Where(flow => flow.Stage == stage).MinBy(flow => flow.Moved);
    }

    static List<int> Of(UdpFlowTable table, int listener)
    {
        List<int> flows = [];
        for (int i = table.FirstOf(listener); i >= 0; i = table[i]->Next)
            flows.Add(i);
        return flows;
    }

    sealed class Model
    {
        public UdpFlowKey Key;
        public int Index;
        public int Listener;
        public UdpFlowStage Stage;
        public long Moved;

        public long Deadline => Moved + (Stage == UdpFlowStage.Requested ? Unreplied : Replied);

        public void Touch(UdpFlowStage stage, long now)
        {
            Stage = stage;
            Moved = now;
        }
    }
}
