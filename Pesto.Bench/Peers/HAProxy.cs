using Pesto.Bench.Compare;

namespace Pesto.Bench.Peers;

/// <summary>HAProxy in TCP mode with as many threads as processors (its default), over the veth pair.</summary>
sealed class HAProxy : Peer
{
    const string Configuration = "/run/haproxy.cfg";

    public override string Name => "haproxy";

    public override string? Program { get; } = Tool.Find("haproxy");

    public override string Installation => "apt-get install haproxy";

    public override bool CarriesUdp => false;

    public override string Version => VersionIn(this.Program!, "-v");

    public override Instance Start(Transport transport)
    {
        File.WriteAllText(Configuration, $"""
            global
                maxconn 8000
            defaults
                mode tcp
                maxconn 8000
                timeout connect 5s
                timeout client 60s
                timeout server 60s
            listen forward
                bind {Topology.Loopback}:{Topology.ListenPort}
                server target {Topology.TargetAddress}:{Topology.ServerPort}

            """);
        return new(new([this.Program!, "-db", "-q", "-f", Configuration]));
    }
}
