using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Loop;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Tests.Listening;

public sealed class ListenersTests
{
    static readonly Address[] Addresses = [Address.AnyV4, Address.Any, Address.LoopbackV4, Address.LoopbackV6];

    // No socket: what closing it does is nobody's loss.
    static readonly Result NoSocket = Result.From(Errno.EBADF);

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void Sockets_are_found_as_in_an_ordinary_dictionary(int seed)
    {
        Random random = new(seed);
        DescriptorBudget budget = new(256);
        Listeners listeners = new(budget);
        Dictionary<(int Pif, ListenAddress Local), int> model = [];
        for (int step = 0; step < 20_000; step++)
        {
            (int Pif, ListenAddress Local) key = (random.Next(2), RandomAddress(random));
            bool isFull = model.Count == listeners.Capacity;
            bool isThere = model.TryGetValue(key, out int index);
            Assert.Equal(isThere ? index : -1, listeners.Find(key.Pif, in key.Local));
            if (isThere)
            {
                listeners.Close(index);
                model.Remove(key);
            }
            else if ((index = listeners.Add(key.Pif, new() { Local = key.Local, Outcome = NoSocket }, DescriptorUse.ListeningExplicit)) >= 0)
            {
                model.Add(key, index);
            }

            Assert.Equal(isFull && !isThere, index < 0);
            Assert.Equal((model.Count, model.Count), (listeners.Count, budget.Listening));
            Assert.Equal(OnPort(model, key), OnPort(listeners, key));
        }
    }

    static ListenAddress RandomAddress(Random random)
    {
        Address address = Addresses[random.Next(Addresses.Length)];
        return new(random.Next(2) == 0 ? IpProtocol.Tcp : IpProtocol.Udp, address, address.IsAny && random.Next(2) == 0, default, (ushort)random.Next(8000, 8040));
    }

    static IEnumerable<int> OnPort(Dictionary<(int Pif, ListenAddress Local), int> model, (int Pif, ListenAddress Local) key) => model
        .Where(pair => pair.Key.Pif == key.Pif && pair.Key.Local.Protocol == key.Local.Protocol && pair.Key.Local.Port == key.Local.Port)
        .Select(pair => pair.Value)
        .Order();

    static IEnumerable<int> OnPort(Listeners listeners, (int Pif, ListenAddress Local) key)
    {
        List<int> found = [];
        for (int i = listeners.FirstOnPort(key.Pif, key.Local.Protocol, key.Local.Port); i >= 0; i = listeners.NextOnPort(i))
            found.Add(i);
        return found.Order();
    }
}
