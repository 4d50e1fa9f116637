namespace Pesto.Protocol;

/// <summary>A "physical interface" of the control protocol: one direction of forwarding, with its own table.</summary>
public static class Pif
{
    /// <summary>Inbound: listens on the host, connects in the namespace.</summary>
    public const byte Host = 1;

    /// <summary>Outbound: listens in the namespace, connects on the host.</summary>
    public const byte Splice = 3;

    public const string HostName = "HOST";

    public const string SpliceName = "SPLICE";
}
