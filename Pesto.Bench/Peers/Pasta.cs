using Pesto.Bench.Compare;

namespace Pesto.Bench.Peers;

/// <summary>
/// pasta of passt. Clients on loopback are spliced to loopback, which is its fastest way; those from elsewhere reach its tap
/// interface, in a namespace that has no other, and keep their address.
/// </summary>
sealed class Pasta : Peer
{
    const string ControlSocket = "/run/pasta.sock";

    public override string Name => "pasta";

    public override string? Program { get; } = Repository.Find(".cache/peers/bin/pasta") ?? Tool.Find("pasta");

    public override string Installation => "./build.sh peers (or apt-get install passt, where it is new enough to have pasta -c)";

    public override bool HasControl => true;

    public override string? Obstacle => Tool.Try(Program!, "--help").Text.Contains("--conf-path", StringComparison.Ordinal)
        ? null : "this version has no control socket (-c): " + Installation;

    public override string Version => VersionIn(Program!, "--version");

    public override Instance Start(Transport transport)
    {
        File.Delete(ControlSocket);
        string ports = $"{Topology.ListenAddress}/{Topology.ListenPort}:{Topology.ServerPort}";
        (string tcp, string udp) = transport == Transport.Tcp ? (ports, "none") : ("none", ports);
        bool local = Topology.Scene.Clients == Clients.Local;
        string @namespace = local ? Topology.TargetNamespace : Topology.BareNamespace;
        string[] way = local ? ["--splice-only"] : ["-4", "--config-net", "--no-map-gw", "-i", Topology.OutsideInterface];
        return new(new(
            Name,
        [
            Program!, "-f", "-q", "--runas", "0", .. way, "-c", ControlSocket, "--netns", @namespace,
            "-t", tcp, "-u", udp, "-T", "none", "-U", "none",
        ]))
        {
            ControlSocket = ControlSocket,
            Namespace = @namespace,
        };
    }
}
