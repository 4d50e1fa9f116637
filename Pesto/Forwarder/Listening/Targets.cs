using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Listening;

/// <summary>Where connections go whose rule names no target address: to the loopback of their own family, unless the user said otherwise.</summary>
public sealed class Targets(Address v4, Address v6)
{
    /// <summary>By family of the client; either may be an address of the other family.</summary>
    public Address Default(bool isV4) => isV4 ? v4 : v6;

    public SocketAddress Of(Address target, bool isV4, ushort port) => SocketAddress.Of(target.IsWildcard ? Default(isV4) : target, port);

    /// <summary>Where a rule leads clients of either family; the same twice if there is but one such address.</summary>
    public (Address One, Address Other) Of(in Rule rule)
    {
        if (!rule.Target.IsWildcard)
            return (rule.Target, rule.Target);
        ListenAddress local = rule.At(rule.First);
        bool hasV4 = local.HasFamily(isV4: true), hasV6 = local.HasFamily(isV4: false);
        return (Default(hasV4), Default(!hasV6));
    }
}
