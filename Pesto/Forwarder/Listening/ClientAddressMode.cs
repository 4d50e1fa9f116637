namespace Pesto.Forwarder.Listening;

/// <summary>What a target sees of the client (<c>--client-address</c>). Clients on the host's loopback come from loopback in every mode.</summary>
public enum ClientAddressMode
{
    /// <summary>The client's own address and port where that is possible, else an address of the container's own.</summary>
    Auto,

    /// <summary>The client's own address and port; where that is not possible the client is refused.</summary>
    Keep,

    /// <summary>An address of the container's own, never loopback; if it has none the client is refused.</summary>
    Container,

    /// <summary>The container's loopback, for every client.</summary>
    Loopback,

    /// <summary>The PROXY protocol, version 2, says the client's address.</summary>
    Proxy,

    /// <summary>The same with version 1, which is for TCP only.</summary>
    ProxyV1,
}
