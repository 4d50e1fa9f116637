using Pesto.Forwarder.Listening;
using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Forwarder.Startup;

/// <summary>The pifs that clients see, and what rules of each may ask for.</summary>
static class OfferedPifs
{
    /// <summary>HOST alone without a network namespace, else HOST and SPLICE.</summary>
    public static Tables.PifEntry[] Of(ServeOptions options, TargetNamespace target, ClientAddress clients)
    {
        Capabilities families = (options.NoV4 ? 0 : Capabilities.V4) | (options.NoV6 ? 0 : Capabilities.V6);
        Capabilities protocols = (options.NoTcp ? 0 : Capabilities.Tcp) | (options.NoUdp ? 0 : Capabilities.Udp);
        Capabilities both = families | protocols | Capabilities.Interface;
        if (target.IsOneSide)
            return [new(Pif.Host, Pif.HostName, both, target.Host, target.Own) { Clients = clients }];
        // What listens in a target that is an address can't be found out.
        both |= Capabilities.Scan;
        return
        [
            new(Pif.Host, Pif.HostName, both, target.Host, target.Own) { Clients = clients, LoopbackServices = new() },
            new(Pif.Splice, Pif.SpliceName, both, target.Own, target.Host),
        ];
    }
}
