namespace Pesto.Bench.Compare;

/// <summary>Where the clients of a comparison are.</summary>
enum Clients
{
    /// <summary>In the forwarder's namespace; they connect to its loopback address.</summary>
    Local,

    /// <summary>In a namespace of their own behind a veth pair, as clients from the network are.</summary>
    Remote,
}

/// <summary>What a load is run in: where the clients are, and the TCP congestion control of all namespaces.</summary>
/// <param name="Congestion">As in net.ipv4.tcp_congestion_control.</param>
sealed record Scene(Clients Clients, string Congestion)
{
    /// <summary>As in arguments, file names and JSON: "remote-cubic".</summary>
    public string Name => $"{(Clients == Clients.Local ? "local" : "remote")}-{Congestion}";

    /// <summary>For headings.</summary>
    public string Title => $"{(Clients == Clients.Local ? "clients on loopback" : "clients behind a veth pair")}, {Congestion}";
}
