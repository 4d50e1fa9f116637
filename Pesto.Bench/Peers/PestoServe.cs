using Pesto.Bench.Compare;

namespace Pesto.Bench.Peers;

/// <summary>The forwarder of this repository, as <c>./build.sh</c> puts it into out/.</summary>
sealed class PestoServe : Peer
{
    const string ControlSocket = "/run/pesto.sock";

    public override string Name => "pesto";

    public override string? Program { get; } = Repository.Find("out/pesto");

    public override string Installation => "./build.sh";

    public override bool HasControl => true;

    public override string Version => VersionIn(Program!, "--version");

    public override Instance Start(Transport transport)
    {
        File.Delete(ControlSocket);
        string option = transport == Transport.Tcp ? "-t" : "-u";
        string ports = $"{Topology.ListenAddress}/{Topology.ListenPort}:{Topology.ServerPort}";
        return new(new(Name, [Program!, "serve", "-f", "-q", "-c", ControlSocket, "--netns", Topology.TargetNamespace, option, ports]))
        {
            ControlSocket = ControlSocket,
        };
    }
}
