using Pesto.Client;
using Pesto.Linux;
using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Bench.Compare;

/// <summary>The tables of a forwarder, by version 2 of the control protocol as it is, which pasta and pesto both speak.</summary>
/// <param name="path">The control socket.</param>
sealed class PortTables(string path)
{
    /// <summary>Milliseconds for the listing, and for an update to be in force.</summary>
    const int Timeout = 30_000;

    /// <summary>The inbound table.</summary>
    public Rule[] Inbound()
    {
        using Exchange exchange = Exchange.Open(path, Timeout);
        return exchange.State.Find(Pif.Host)!.Table.Rules.ToArray();
    }

    /// <summary>Makes these rules the inbound table and empties all others; returns when the forwarder has hung up.</summary>
    public void Replace(ReadOnlySpan<Rule> kept, params ReadOnlySpan<Rule> added)
    {
        using Exchange exchange = Exchange.Open(path, Timeout);
        byte[] update = new byte[ServerState.MostBytes];
        TablesWriter writer = new(update);
        foreach (PifState pif in exchange.State.Pifs)
            writer.Table(pif.Number, pif.Number == Pif.Host ? [.. kept, .. added] : []);
        writer.End();
        exchange.Update(update.AsSpan(0, writer.Length), Timeout);
    }

    /// <summary>A rule for TCP from loopback to the same ports of the target's loopback.</summary>
    public static Rule Forward(ushort first, ushort last) =>
        new() { Address = Address.LoopbackV4, First = first, Last = last, To = first, Protocol = IpProtocol.Tcp };
}
