using System.Text;
using Pesto.Linux;

namespace Pesto.Rules;

/// <summary>
/// What one listening socket is bound to. Whether two sockets are the same, whether they are in each other's way, and
/// whose traffic a socket gets is decided here and nowhere else. Blittable: it stands in native tables.
/// </summary>
/// <param name="Protocol">TCP or UDP.</param>
/// <param name="Address">An address of the host's own, or a wildcard: 0.0.0.0 for IPv4, "::" for IPv6, or for both if dual stack.</param>
/// <param name="IsDualStack">One socket for both families; the address is then "::".</param>
/// <param name="Interface">The interface to which it is bound (SO_BINDTODEVICE), or empty.</param>
/// <param name="Port">1 to 65535.</param>
public readonly record struct ListenAddress(IpProtocol Protocol, Address Address, bool IsDualStack, InterfaceName Interface, ushort Port)
{
    /// <summary>What a socket is bound to that the kernel lists, on whatever interface.</summary>
    public static ListenAddress Of(IpProtocol protocol, in BoundSocket socket) =>
        new(protocol, socket.Address, socket.Address.IsAny && !socket.V6Only, default, socket.Port);

    /// <summary>AF_INET or AF_INET6: the family of the socket.</summary>
    public ushort Family => Address.IsV4 ? SocketAddress.V4 : SocketAddress.V6;

    /// <summary>Whether clients of a family come to it: of both if it is dual stack.</summary>
    public bool HasFamily(bool isV4) => IsDualStack || Address.IsV4 == isV4;

    /// <summary>Whether what is sent to an address, to its port and by its interface, comes to it: to its own, or to any of its family.</summary>
    public bool Serves(Address destination) => IsDualStack || Address == destination || (Address.IsWildcard && Address.IsV4 == destination.IsV4);

    /// <summary>Whether everything that comes to another socket would come to this one if the other were not there.</summary>
    public bool Includes(in ListenAddress other) =>
        Protocol == other.Protocol && Port == other.Port
        && (Interface.IsEmpty || Interface.Equals(other.Interface))
        && (IsDualStack || (!other.IsDualStack && Serves(other.Address)));

    /// <summary>
    /// Whether there is something that would come to either. As in the kernel's check for EADDRINUSE that is so for the wildcard and
    /// any other address of a family; unlike there, the interface makes no difference: by it, no two rules can be told apart.
    /// </summary>
    public bool Overlaps(in ListenAddress other) =>
        Protocol == other.Protocol && Port == other.Port && (other.IsDualStack || Serves(other.Address) || other.Serves(Address));

    /// <summary>As errors name it: "TCP 0.0.0.0:80", "UDP [::1]%lo:53", "TCP *:80".</summary>
    public override string ToString()
    {
        StringBuilder text = new StringBuilder(Protocol.Name()).Append(' ');
        if (IsDualStack)
            text.Append('*');
        else if (Address.IsV4)
            text.Append(Address.ToString());
        else
            text.Append('[').Append(Address.ToString()).Append(']');
        if (!Interface.IsEmpty)
            RuleText.AppendPrintable(text.Append('%'), Interface.ToString());
        return text.Append(':').Append(Port).ToString();
    }
}
