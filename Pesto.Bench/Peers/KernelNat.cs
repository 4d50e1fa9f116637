using Pesto.Bench.Compare;

namespace Pesto.Bench.Peers;

/// <summary>
/// The kernel's own forwarding: a destination NAT rule of nftables for what this host sends or routes, over the veth pair. Needs no process,
/// but administrator's rights on the host; a limit rather than a competitor. A local client uses the host's veth address.
/// </summary>
sealed class KernelNat : Peer
{
    const string Rules = "/run/dnat.nft";

    public override string Name => "dnat";

    public override string? Program { get; } = Tool.Find("nft");

    public override string Installation => "apt-get install nftables";

    public override bool IsForwarder => false;

    public override string Version => VersionIn(Program!, "--version");

    public override Instance Start(Transport transport)
    {
        string protocol = transport == Transport.Tcp ? "tcp" : "udp";
        bool local = Topology.Scene.Clients == Clients.Local;
        string hook = local ? "output" : "prerouting";
        string address = local ? Topology.HostAddress : Topology.OutsideAddress;
        File.WriteAllText(Rules, $$"""
            table ip pesto_bench {
                chain forward {
                    type nat hook {{hook}} priority -100
                    ip daddr {{address}} {{protocol}} dport {{Topology.ListenPort}} dnat to {{Topology.TargetAddress}}:{{Topology.ServerPort}}
                }
            }

            """);
        Tool.Run(Program!, "-f", Rules);
        // Without the table the kernel stops tracking connections, which the others must not pay for.
        return new() { Address = address, Undo = () => Tool.Run(Program!, "delete", "table", "ip", "pesto_bench") };
    }
}
