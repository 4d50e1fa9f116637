using Pesto.Bench.Compare;

namespace Pesto.Bench.Peers;

/// <summary>
/// HAProxy in TCP mode with as many threads as processors (its default), connecting in the server's namespace by itself. Larger
/// buffers than usual suit it; its splicing was slower here.
/// </summary>
sealed class HAProxy : Peer
{
    const string Configuration = "/run/haproxy.cfg";

    public override string Name => "haproxy";

    public override string? Program { get; } = Tool.Find("haproxy");

    public override string Installation => "apt-get install haproxy";

    public override bool CarriesUdp => false;

    public override string Version => VersionIn(Program!, "-v");

    public override Instance Start(Transport transport)
    {
        File.WriteAllText(Configuration, $"""
            global
                maxconn 8000
                tune.bufsize 65536
            defaults
                mode tcp
                maxconn 8000
                timeout connect 5s
                timeout client 60s
                timeout server 60s
            listen forward
                bind {Topology.ListenAddress}:{Topology.ListenPort}
                server target {Topology.Loopback}:{Topology.ServerPort} namespace {Topology.Target}

            """);
        return new(new(Name, [Program!, "-db", "-f", Configuration]));
    }
}
