namespace Pesto.Rules;

/// <summary>One of the four options that take a specifier: which protocol, and in which direction.</summary>
public sealed class PortOption
{
    public static readonly PortOption TcpIn = new('t', IpProtocol.Tcp, false);
    public static readonly PortOption UdpIn = new('u', IpProtocol.Udp, false);
    public static readonly PortOption TcpOut = new('T', IpProtocol.Tcp, true);
    public static readonly PortOption UdpOut = new('U', IpProtocol.Udp, true);

    PortOption(char letter, IpProtocol protocol, bool isOutbound)
    {
        Letter = letter;
        Protocol = protocol;
        IsOutbound = isOutbound;
    }

    public char Letter { get; }

    public IpProtocol Protocol { get; }

    /// <summary>Listens in the namespace, on its loopback only, and connects on the host.</summary>
    public bool IsOutbound { get; }

    /// <summary>As given on the command line: "-t".</summary>
    public override string ToString() => $"-{Letter}";
}
