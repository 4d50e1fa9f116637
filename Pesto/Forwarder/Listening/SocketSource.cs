using Pesto.Linux;

namespace Pesto.Forwarder.Listening;

/// <summary>Which address a socket to a target is bound to before anything is sent.</summary>
/// <param name="Address">What to bind to; the port is 0 for any.</param>
public readonly record struct SocketSource(SocketSource.Kind Is, SocketAddress Address)
{
    public enum Kind : byte
    {
        /// <summary>None: the kernel chooses by the route, which for a target on loopback is loopback.</summary>
        KernelsChoice,

        /// <summary>The client's own, of another host, on a transparent socket.</summary>
        Client,

        /// <summary>One of the container's own, not on loopback.</summary>
        Container,

        /// <summary>There is none that the target may see: the client is refused.</summary>
        None,
    }

    /// <summary>The same address with a port that the kernel chooses: the client's own is taken, or not allowed.</summary>
    public SocketSource WithAnyPort() => new(Is, SocketAddress.Of(Address.Address, 0, Address.Scope));

    public static SocketSource KernelsChoice => default;

    public static SocketSource None => new(Kind.None, default);
}
