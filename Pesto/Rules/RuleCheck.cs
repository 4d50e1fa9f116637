namespace Pesto.Rules;

/// <summary>Why a rule can't be part of a table.</summary>
public enum RuleFault
{
    None,
    PortZero,
    PortsReversed,
    TargetPortZero,
    TargetPortsPastEnd,
    UnknownFlag,
    UnknownProtocol,
    ProtocolUnavailable,
    FamilyUnavailable,
    ScanUnavailable,
    InterfaceUnavailable,
    InterfaceUnterminated,
    DualStackWithAddress,
    DualStackNeedsBothFamilies,
    DualStackWithTarget,
    TargetOfOtherFamily,
    TargetNotUnicast,
    Conflict,
    TooManyRules,
}

/// <summary>The rules that rules must follow: each by itself, and against those before it in the same table.</summary>
public static class RuleCheck
{
    /// <summary>The most rules that a table holds (the count that the protocol allows for a pif).</summary>
    public const int MostRules = 255;

    public static RuleFault Check(in Rule rule, Capabilities capabilities)
    {
        if (rule.First == 0)
            return RuleFault.PortZero;
        if (rule.First > rule.Last)
            return RuleFault.PortsReversed;
        if (rule.To == 0)
            return RuleFault.TargetPortZero;
        if (rule.To + (rule.Last - rule.First) > ushort.MaxValue)
            return RuleFault.TargetPortsPastEnd;
        if ((rule.Flags & ~RuleFlags.All) != 0)
            return RuleFault.UnknownFlag;
        if (rule.Protocol is not (IpProtocol.Tcp or IpProtocol.Udp))
            return RuleFault.UnknownProtocol;
        if ((capabilities & (rule.Protocol == IpProtocol.Tcp ? Capabilities.Tcp : Capabilities.Udp)) == 0)
            return RuleFault.ProtocolUnavailable;
        if (rule.IsScan && (capabilities & Capabilities.Scan) == 0)
            return RuleFault.ScanUnavailable;
        if (!rule.Interface.IsTerminated)
            return RuleFault.InterfaceUnterminated;
        if (!rule.Interface.IsEmpty && (capabilities & Capabilities.Interface) == 0)
            return RuleFault.InterfaceUnavailable;
        return CheckAddresses(in rule, capabilities);
    }

    static RuleFault CheckAddresses(in Rule rule, Capabilities capabilities)
    {
        if (rule.IsDualStack)
        {
            if (!rule.Address.IsAny)
                return RuleFault.DualStackWithAddress;
            if ((capabilities & (Capabilities.V4 | Capabilities.V6)) != (Capabilities.V4 | Capabilities.V6))
                return RuleFault.DualStackNeedsBothFamilies;
            return rule.Target.IsWildcard ? RuleFault.None : RuleFault.DualStackWithTarget;
        }

        if ((capabilities & (rule.Address.IsV4 ? Capabilities.V4 : Capabilities.V6)) == 0)
            return RuleFault.FamilyUnavailable;
        if (rule.Target.IsWildcard)
            return RuleFault.None;
        if (rule.Target.IsV4 != rule.Address.IsV4)
            return RuleFault.TargetOfOtherFamily;
        return rule.Target.IsMulticast || rule.Target.IsBroadcast ? RuleFault.TargetNotUnicast : RuleFault.None;
    }

    /// <summary>Whether two rules want the same traffic: at a port that both cover, their sockets would overlap.</summary>
    public static bool Conflict(in Rule one, in Rule other)
    {
        ushort port = Math.Max(one.First, other.First);
        return port <= one.Last && port <= other.Last && one.At(port).Overlaps(other.At(port));
    }

    /// <summary>Checks a rule against those that a table holds already.</summary>
    /// <param name="conflicting">The position of the rule that it conflicts with, or -1.</param>
    public static RuleFault CheckAgainst(ReadOnlySpan<Rule> table, in Rule rule, out int conflicting)
    {
        conflicting = -1;
        if (table.Length >= MostRules)
            return RuleFault.TooManyRules;
        for (int i = 0; i < table.Length; i++)
        {
            if (Conflict(in table[i], in rule))
            {
                conflicting = i;
                return RuleFault.Conflict;
            }
        }

        return RuleFault.None;
    }

    /// <summary>The reason in words that fit behind "rule: ".</summary>
    public static string Text(this RuleFault fault) => fault switch
    {
        RuleFault.None => "valid",
        RuleFault.PortZero => "port 0 can't be forwarded",
        RuleFault.PortsReversed => "the last port comes before the first",
        RuleFault.TargetPortZero => "port 0 can't be a target",
        RuleFault.TargetPortsPastEnd => "the target ports run past 65535",
        RuleFault.UnknownFlag => "unknown flag",
        RuleFault.UnknownProtocol => "neither TCP nor UDP",
        RuleFault.ProtocolUnavailable => "this protocol is not available here",
        RuleFault.FamilyUnavailable => "this address family is not available here",
        RuleFault.ScanUnavailable => "\"auto\" is not available here",
        RuleFault.InterfaceUnavailable => "binding to an interface is not available here",
        RuleFault.InterfaceUnterminated => "interface name without end",
        RuleFault.DualStackWithAddress => "a dual-stack rule can't have a listening address",
        RuleFault.DualStackNeedsBothFamilies => "a dual-stack rule needs both IPv4 and IPv6",
        RuleFault.DualStackWithTarget => "a target address needs a listening address of the same family",
        RuleFault.TargetOfOtherFamily => "listening and target address are of different families",
        RuleFault.TargetNotUnicast => "the target is a multicast or broadcast address",
        RuleFault.Conflict => "conflicts with another rule",
        RuleFault.TooManyRules => "a table holds at most 255 rules",
        _ => "invalid",
    };
}
