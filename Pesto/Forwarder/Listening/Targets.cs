using Pesto.Linux;

namespace Pesto.Forwarder.Listening;

/// <summary>Where connections go whose rule names no target address: to the loopback of their own family, unless the user said otherwise.</summary>
public sealed class Targets(Address v4, Address v6)
{
    /// <summary>By family of the client; either may be an address of the other family.</summary>
    public Address Default(bool isV4) => isV4 ? v4 : v6;

    public SocketAddress Of(Address target, bool isV4, ushort port) => SocketAddress.Of(target.IsAny || target == Address.AnyV4 ? Default(isV4) : target, port);
}
