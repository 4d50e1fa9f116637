using Pesto.Linux;

namespace Pesto.Rules;

/// <summary>The IP protocols that can be forwarded, by their numbers in the IP header.</summary>
public enum IpProtocol : byte
{
    Tcp = 6,
    Udp = 17,
}

[Flags]
public enum RuleFlags : byte
{
    None = 0,

    /// <summary>One socket for any address of both families.</summary>
    DualStack = 1,

    /// <summary>A port that can't be bound is no failure ("best effort").</summary>
    Weak = 2,

    /// <summary>Only ports on which something listens in the target ("auto").</summary>
    Scan = 4,

    All = DualStack | Weak | Scan,
}

/// <summary>What to listen on, where to send it, and how strict to be. Blittable: tables of rules live in native memory.</summary>
public struct Rule : IEquatable<Rule>
{
    /// <summary>Listening address; "::" with <see cref="RuleFlags.DualStack"/> is any address of both families.</summary>
    public Address Address;

    /// <summary>Where to connect; a wildcard ("::", or 0.0.0.0 where that was written) means the forwarder's default target, loopback.</summary>
    public Address Target;

    /// <summary>The interface that the listening sockets are bound to, or empty.</summary>
    public InterfaceName Interface;

    /// <summary>First listening port, 1 to 65535.</summary>
    public ushort First;

    /// <summary>Last listening port, inclusive.</summary>
    public ushort Last;

    /// <summary>Target port for <see cref="First"/>; listening port n goes to To + (n - First).</summary>
    public ushort To;

    public IpProtocol Protocol;

    public RuleFlags Flags;

    public readonly bool IsDualStack => (Flags & RuleFlags.DualStack) != 0;

    public readonly bool IsWeak => (Flags & RuleFlags.Weak) != 0;

    public readonly bool IsScan => (Flags & RuleFlags.Scan) != 0;

    public readonly int Ports => Last - First + 1;

    public readonly ushort TargetPort(ushort port) => (ushort)(To + (port - First));

    /// <summary>What the socket for one of its ports listens on.</summary>
    public readonly ListenAddress At(ushort port) => new(Protocol, Address, IsDualStack, Interface, port);

    public readonly bool Covers(ushort port) => port >= First && port <= Last;

    public readonly bool Equals(Rule other) =>
        Address == other.Address && Target == other.Target && Interface.Equals(other.Interface)
        && First == other.First && Last == other.Last && To == other.To
        && Protocol == other.Protocol && Flags == other.Flags;

    public override readonly bool Equals(object? obj) => obj is Rule other && Equals(other);

    public override readonly int GetHashCode() => HashCode.Combine(Address, First, Last, To, Protocol, Flags);
}
