using Pesto.Bench.Compare;

namespace Pesto.Bench.Peers;

/// <summary>socat with a process for each connection or client, over the veth pair. Larger buffers than usual suit it.</summary>
sealed class Socat : Peer
{
    public override string Name => "socat";

    public override string? Program { get; } = Tool.Find("socat");

    public override string Installation => "apt-get install socat";

    public override string Version => Tool.Try(Program!, "-V").Text.Split(' ').SkipWhile(word => word != "version").Skip(1).FirstOrDefault() ?? "?";

    public override Instance Start(Transport transport)
    {
        string target = $"{Topology.TargetAddress}:{Topology.ServerPort}";
        string listen = $"LISTEN:{Topology.ListenPort},bind={Topology.ListenAddress},fork,reuseaddr";
        return new(new(Name, transport == Transport.Tcp
            ? [Program!, "-b", "65536", $"TCP-{listen},backlog=4096", $"TCP:{target}"]
            : [Program!, "-b", "65536", $"UDP-{listen}", $"UDP:{target}"]));
    }
}
