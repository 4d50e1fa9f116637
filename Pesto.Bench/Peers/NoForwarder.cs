using Pesto.Bench.Compare;

namespace Pesto.Bench.Peers;

/// <summary>The client connects to the server itself, over the veth pair.</summary>
sealed class NoForwarder : Peer
{
    public override string Name => "direct";

    public override string? Program => "";

    public override string Installation => "";

    public override bool IsForwarder => false;

    public override string Version => "";

    public override Instance Start(Transport transport) => new() { Address = Topology.TargetAddress, Port = Topology.ServerPort };
}
