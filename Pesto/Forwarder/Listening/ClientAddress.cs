using Pesto.Forwarder.Namespace;
using Pesto.Forwarder.Reporting;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Listening;

/// <summary>
/// Decides from which address a client comes to its target. Programs trust 127.0.0.1 and ::1, so clients of other hosts do not come from
/// there, unless <see cref="ClientAddressMode.Loopback"/> is asked for (CVE-2021-20199).
/// </summary>
/// <param name="mark">Of what transparent sockets send.</param>
/// <param name="routing">What brings answers back to transparent sockets; null if there is nothing.</param>
/// <param name="addresses">Of the namespace in which the targets are; null if they can't be found out.</param>
public sealed class ClientAddress(ClientAddressMode mode, uint mark, ClientAddressRouting? routing, InterfaceAddresses? addresses, Counters counters)
{
    /// <summary>In the container, all that comes from a transparent socket comes by way of its loopback interface.</summary>
    const uint LoopbackInterface = 1;

    bool _saidRefused;
    bool _saidNotAllowed;

    /// <summary>Every client comes from the address that the kernel chooses: loopback for a target on loopback.</summary>
    public static ClientAddress Unchanged { get; } = new(ClientAddressMode.Loopback, 0, null, null, new());

    /// <summary>Whether <see cref="For"/> needs the client's address.</summary>
    public bool Matters => mode != ClientAddressMode.Loopback;

    /// <summary>The version of the PROXY protocol that gives the target the client's address; 0 for none.</summary>
    public int ProxyVersion => mode switch { ClientAddressMode.Proxy => 2, ClientAddressMode.ProxyV1 => 1, _ => 0 };

    /// <summary>Names a rule some of whose clients could not keep their address, though they must; null if there is none.</summary>
    public static string? WhyNotKept(Tables tables, int set)
    {
        for (int pif = 0; pif < tables.Pifs.Length; pif++)
        {
            ReadOnlySpan<Rule> rules = tables.Rules(pif, set);
            for (int i = 0; i < rules.Length; i++)
            {
                if (tables.Pifs[pif].Clients.WhyNotKept(in rules[i]) is string why)
                    return $"{tables.Pifs[pif].Name} rule {i}: {why} (--client-address keep)";
            }
        }

        return null;
    }

    string? WhyNotKept(in Rule rule)
    {
        if (mode != ClientAddressMode.Keep)
            return null;
        bool takesV4 = rule.IsDualStack || rule.Address.IsV4, takesV6 = rule.IsDualStack || rule.Address.IsV6;
        if (!rule.Target.IsWildcard && !IsHere(rule.Target))
            return $"its target {rule.Target} is not an address of the container's";
        if (!rule.Target.IsWildcard && (rule.Target.IsV4 ? takesV6 : takesV4))
            return $"clients of the other family can't come to {rule.Target} from their own address";
        // Where IPv6 is turned off in the container, its clients have nowhere to come to.
        bool lacksV4 = takesV4 && !routing!.Keeps(rule.Protocol, isV4: true), lacksV6 = takesV6 && routing!.HasV6 && !routing.Keeps(rule.Protocol, isV4: false);
        return lacksV4 || lacksV6 ? $"its clients can't keep their address: {routing!.Missing?.Message}" : null;
    }

    /// <summary>The source of a new socket to a target. To be asked once for each flow.</summary>
    /// <param name="target">By the client's rule; becomes loopback of the other family where only that one has a source to offer.</param>
    public SocketSource For(IpProtocol protocol, in SocketAddress client, ref SocketAddress target)
    {
        if (!Matters || client.Address.IsLoopback)
            return SocketSource.KernelsChoice;
        // To the kernel 0.0.0.0 is this host.
        if (client.Address.IsWildcard)
            return SocketSource.None;
        bool isHere = IsHere(target.Address);
        bool canKeep = isHere && client.Address.IsV4 == target.Address.IsV4 && routing is not null && routing.Keeps(protocol, target.Address.IsV4);
        if (canKeep && mode is ClientAddressMode.Auto or ClientAddressMode.Keep)
            return Own(in client);
        SocketSource source = mode == ClientAddressMode.Keep ? SocketSource.None : isHere ? Container(ref target) : SocketSource.KernelsChoice;
        // A target that reads the PROXY protocol may ask for a trustworthy peer, so that is the container where it has an address.
        if (source.Is == SocketSource.Kind.None && canKeep && ProxyVersion != 0)
            return Own(in client);
        if (source.Is == SocketSource.Kind.None)
            Refused(in client, in target);
        return source;
    }

    /// <summary>The source of a client that can't have the one that <see cref="For"/> gave, because the kernel does not let a socket be bound to it.</summary>
    public SocketSource Instead(in SocketSource refused, in SocketAddress client, ref SocketAddress target)
    {
        SocketSource source = refused.Is == SocketSource.Kind.Client && mode != ClientAddressMode.Keep ? Container(ref target) : SocketSource.None;
        if (source.Is == SocketSource.Kind.None)
            Refused(in client, in target);
        return source;
    }

    static SocketSource Own(in SocketAddress client) =>
        new(SocketSource.Kind.Client, SocketAddress.Of(client.Address, client.Port, client.Address.IsLinkLocal ? LoopbackInterface : 0));

    SocketSource Container(ref SocketAddress target)
    {
        bool isV4 = target.Address.IsV4;
        Address own = addresses?.Own(isV4) ?? default;
        if (own.IsAny && (target.Address == Address.LoopbackV4 || target.Address == Address.LoopbackV6))
        {
            own = addresses?.Own(!isV4) ?? default;
            if (!own.IsAny)
                target = SocketAddress.Of(isV4 ? Address.LoopbackV6 : Address.LoopbackV4, target.Port);
        }

        return own.IsAny ? SocketSource.None : new(SocketSource.Kind.Container, SocketAddress.Of(own, 0));
    }

    /// <summary>Whether this is an address of the namespace in which the targets are.</summary>
    public bool IsHere(Address target) => target.IsLoopback || (addresses?.Contains(target) ?? false);

    /// <summary>A client from a network wants what is for loopback: see <see cref="LoopbackServices"/>.</summary>
    public void NotAllowed(in SocketAddress client, in SocketAddress target)
    {
        counters.AddressRefused++;
        if (_saidNotAllowed)
            return;
        _saidNotAllowed = true;
        Log.Info($"client {client.Address} is refused: what listens on {target.Address} port {target.Port} does so on loopback alone, which an \"auto\" rule shows to loopback alone");
    }

    /// <summary>The same for a connection, which is reset.</summary>
    public void Refuse(in SocketAddress client, in SocketAddress target, int fd)
    {
        NotAllowed(in client, in target);
        _ = Sockets.SetResetOnClose(fd).Ok;
        Descriptors.Close(fd);
    }

    void Refused(in SocketAddress client, in SocketAddress target)
    {
        counters.AddressRefused++;
        if (_saidRefused)
            return;
        _saidRefused = true;
        if (mode == ClientAddressMode.Keep)
            Log.Warn($"client {client.Address} is refused: it can't come to {target.Address} from its own address, and --client-address keep allows no other");
        else
            Log.Warn($"client {client.Address} is refused: it can't come to {target.Address} from its own address, and the container has no address but loopback");
    }

    /// <summary>
    /// Binds a new socket to its source. EADDRINUSE: the port is taken, and EACCES: it is not allowed; then <see cref="SocketSource.WithAnyPort"/>
    /// can be tried with the same socket. EPERM: sockets may not be transparent or marked here.
    /// </summary>
    public Result Bind(int fd, IpProtocol protocol, in SocketSource source)
    {
        Result done = default;
        SocketAddress address = source.Address;
        if (source.Is == SocketSource.Kind.KernelsChoice)
            return done;
        if (source.Is == SocketSource.Kind.Client)
        {
            done = Sockets.SetTransparent(fd, address.Family);
            if (done.Ok)
                done = Sockets.SetMark(fd, mark);
            // One client's port may come by two rules to one target, and connections that have ended keep theirs for a while. Of two UDP
            // sockets with the same address one would get what is for the other.
            if (done.Ok && protocol == IpProtocol.Tcp)
                done = Sockets.SetReuseAddress(fd, true);
        }

        // TCP finds a port when it connects, then one may serve several connections, to different targets.
        if (done.Ok && address.Port == 0 && protocol == IpProtocol.Tcp)
            done = Sockets.SetBindAddressNoPort(fd);
        return done.Ok ? Sockets.Bind(fd, in address) : done;
    }

    /// <summary>
    /// A UDP flow with the client's address ends: a last datagram, which never arrives, has the kernel forget where its replies go. Without it
    /// they would go there for some minutes more, even if the client has come to speak to the container directly.
    /// </summary>
    public unsafe void Forget(int fd, in SocketAddress target)
    {
        byte nothing = 0;
        SocketAddress to = target;
        if (Sockets.SetMark(fd, ClientAddressRouting.ForgetMark(mark)).Ok)
            _ = Sockets.SendTo(fd, &nothing, 0, &to).Ok;
    }
}
