using Pesto.Bench.Traffic;

namespace Pesto.Bench.Compare;

/// <summary>What is looked at while the traffic flows.</summary>
enum Subject
{
    /// <summary>How much of it gets through.</summary>
    Rate,

    /// <summary>What connections cost that are open and silent.</summary>
    Idle,

    /// <summary>How often tables can be replaced, and what that does to clients that connect meanwhile.</summary>
    Updates,

    /// <summary>How long an exchange takes at most while 10,000 ports are added and removed.</summary>
    LargeUpdate,
}

/// <summary>A load that all forwarders are put under.</summary>
/// <param name="Traffic">The kind that the near end generates.</param>
/// <param name="ServerMode">What the far end does with it.</param>
/// <param name="Unit">Of the figure that is compared.</param>
/// <param name="Work">What the forwarder's processor time is divided by.</param>
sealed record Load(
    string Name, string Title, Transport Transport, string Traffic, string ServerMode, int Count, int Size, string Unit, string Work,
    bool HigherIsBetter = true, Subject Subject = Subject.Rate)
{
    const string Gigabyte = "GB";
    const string Exchanges = "1,000 exchanges";
    const string Connections = "1,000 connections";
    const string Datagrams = "1,000 datagrams";

    public bool NeedsControl => Subject is Subject.Updates or Subject.LargeUpdate;

    /// <summary>Whether it says nothing about what has no process.</summary>
    public bool NeedsProcess => Subject != Subject.Rate;

    public bool CarriesBytes => Work == Gigabyte;

    public static IReadOnlyList<Load> All { get; } =
    [
        Bulk(1, up: true), Bulk(8, up: true), Bulk(1, up: false), Bulk(8, up: false),
        Exchange(1, 64), Exchange(64, 64), Exchange(512, 64), Exchange(1, 16384), Exchange(64, 16384), Exchange(512, 16384),
        Connect(1), Connect(32),
        Datagram(1), Datagram(32),
        new("udp-flood", "UDP one way, 1,400 B", Transport.Udp, TrafficVerbs.UdpFlood, Server.UdpSink, 1, 0, "datagrams/s", Datagrams),
        new("udp-flood-gso", "UDP one way, 1,400 B, segmentation offload", Transport.Udp, TrafficVerbs.UdpFloodSegmented, Server.UdpSinkGro, 1, 0, "datagrams/s", Datagrams),
        new("idle", "Resident size with 5,000 idle connections", Transport.Tcp, TrafficVerbs.Idle, Server.TcpEcho, 5000, 64, "MiB", "", HigherIsBetter: false, Subject.Idle),
        new("update", "Table updates while clients connect", Transport.Tcp, TrafficVerbs.Connect, Server.TcpEcho, 1, 64, "updates/s", "", Subject: Subject.Updates),
        new("update-10000", "Longest exchange while 10,000 ports come and go", Transport.Tcp, TrafficVerbs.TcpExchange, Server.TcpEcho, 1, 64, "ms", "",
            HigherIsBetter: false, Subject.LargeUpdate),
    ];

    static Load Bulk(int streams, bool up) => new(
        $"tcp-bulk-{streams}-{(up ? "up" : "down")}", $"TCP, {streams} stream{(streams == 1 ? "" : "s")} {(up ? "to" : "from")} the server", Transport.Tcp,
        up ? TrafficVerbs.Up : TrafficVerbs.Down, up ? Server.TcpSink : Server.TcpSource, streams, 0, "Gbit/s", Gigabyte);

    static Load Exchange(int connections, int size) => new(
        $"tcp-rr-{connections}-{(size == 64 ? "64" : "16k")}",
        $"TCP request/response, {connections} connection{(connections == 1 ? "" : "s")}, {(size == 64 ? "64 B" : "16 KiB")}", Transport.Tcp,
        TrafficVerbs.TcpExchange, Server.TcpEcho, connections, size, "exchanges/s", Exchanges);

    static Load Connect(int atATime) => new(
        $"tcp-connect-{atATime}", $"TCP connect, exchange, close; {atATime} at a time", Transport.Tcp,
        TrafficVerbs.Connect, Server.TcpEcho, atATime, 64, "connections/s", Connections);

    static Load Datagram(int clients) => new(
        $"udp-rr-{clients}", $"UDP request/response, {clients} client{(clients == 1 ? "" : "s")}, 64 B", Transport.Udp,
        TrafficVerbs.UdpExchange, Server.UdpEcho, clients, 64, "exchanges/s", Exchanges);
}
