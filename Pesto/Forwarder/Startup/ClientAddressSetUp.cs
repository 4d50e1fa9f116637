using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Namespace;
using Pesto.Forwarder.Reporting;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Startup;

/// <summary>Does what <c>--client-address</c> asks for before anything listens, and says what can't be had.</summary>
public sealed class ClientAddressSetUp
{
    readonly ServeOptions _options;
    readonly InterfaceAddresses? _addresses;

    public ClientAddressSetUp(ServeOptions options, TargetNamespace target, int udpFlows)
    {
        _options = options;
        if (options.ClientAddress == ClientAddressMode.Loopback)
            return;
        Result known = InterfaceAddresses.Open(out _addresses);
        if (!known.Ok)
            Log.Warn($"the container's addresses can't be found out: {known.Error.Text()}");
        bool keeps = options.ClientAddress is ClientAddressMode.Auto or ClientAddressMode.Keep;
        // The PROXY protocol does without, but for a container that has no address from which clients could come.
        if (target.IsOneSide || !(keeps || (IsProxy && !HasAddress)))
            return;

        Routing = ClientAddressRouting.SetUp(options.ClientAddressMark, udpFlows, Math.Max(options.UdpTimeout, options.UdpStreamTimeout));
        // Where the address has to be kept, whoever asks for a rule for which that is not possible hears of it.
        if (Routing.Missing is not LinuxException missing || options.ClientAddress == ClientAddressMode.Keep)
            return;
        Log.Warn($"clients of {NotKept()} come from {(HasAddress ? "the container's own address" : "nowhere and are refused")}, since theirs can't be kept: {missing.Message}");
    }

    /// <summary>What brings answers to a client's address back; null if there is nothing of it.</summary>
    public ClientAddressRouting? Routing { get; }

    bool IsProxy => _options.ClientAddress is ClientAddressMode.Proxy or ClientAddressMode.ProxyV1;

    bool HasAddress => _addresses is not null && !(_addresses.Own(isV4: true).IsAny && _addresses.Own(isV4: false).IsAny);

    public ClientAddress For(Counters counters) => new(_options.ClientAddress, _options.ClientAddressMark, Routing, _addresses, counters);

    /// <summary>Such as "UDP" or "IPv6".</summary>
    string NotKept()
    {
        bool Keeps(IpProtocol protocol, bool isV4) => Routing!.Keeps(protocol, isV4);
        bool tcp4 = Keeps(IpProtocol.Tcp, isV4: true), tcp6 = Keeps(IpProtocol.Tcp, isV4: false), udp4 = Keeps(IpProtocol.Udp, isV4: true), udp6 = Keeps(IpProtocol.Udp, isV4: false);
        return (tcp4 || tcp6) && !udp4 && !udp6 ? "UDP" : tcp4 && !tcp6 ? "IPv6" : (udp4 || udp6) && !tcp4 && !tcp6 ? "TCP" : "TCP and UDP";
    }
}
