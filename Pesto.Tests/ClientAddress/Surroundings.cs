using System.Net;
using System.Net.Sockets;
using Pesto.Tests.Harness;

namespace Pesto.Tests.ClientAddress;

/// <summary>
/// A host with a container, and a client in a network of its own on the other side of a cable to the host. The container has an address and a
/// default route by way of the host, or nothing but its loopback.
/// </summary>
sealed class Surroundings : IDisposable
{
    public const string HostV4 = "10.96.0.1", HostV6 = "fd96::1", ClientV4 = "10.96.0.2", ClientV6 = "fd96::2";
    public const string ContainerV4 = "10.89.0.2", ContainerV6 = "fd89::2", GatewayV4 = "10.89.0.1", GatewayV6 = "fd89::1";

    public Surroundings(Account? owner = null, bool bridged = true)
    {
        Bed = new(owner);
        Outside.Link(Bed.Host, [$"{ClientV4}/24", $"{ClientV6}/64"], [$"{HostV4}/24", $"{HostV6}/64"]);
        if (!bridged)
            return;
        // The container's end of the cable: by name, or by the process that holds an ordinary user's container.
        string container = Bed.Container.Name ?? $"{Bed.Container.HolderId}";
        new Command("ip", "link", "add", "cable", "netns", Bed.Host.Name!, "type", "veth", "peer", "eth0", "netns", container).RunOrFail();
        OnHost("address", "add", $"{GatewayV4}/24", "dev", "cable");
        OnHost("address", "add", $"{GatewayV6}/64", "dev", "cable", "nodad");
        OnHost("link", "set", "cable", "up");
        InContainer("address", "add", $"{ContainerV4}/24", "dev", "eth0");
        InContainer("address", "add", $"{ContainerV6}/64", "dev", "eth0", "nodad");
        InContainer("link", "set", "eth0", "up");
        InContainer("route", "add", "default", "via", GatewayV4);
        InContainer("route", "add", "default", "via", GatewayV6);
        // The client also has a way to the container that is no forwarder's: the host routes.
        Bed.Host.Run(() =>
        {
            File.WriteAllText("/proc/sys/net/ipv4/ip_forward", "1");
            File.WriteAllText("/proc/sys/net/ipv6/conf/all/forwarding", "1");
            return 0;
        });
        new Command("ip", "-n", Outside.Name!, "route", "add", $"{ContainerV4}/32", "via", HostV4).RunOrFail();
        new Command("ip", "-n", Outside.Name!, "route", "add", $"{ContainerV6}/128", "via", HostV6).RunOrFail();
    }

    public Testbed Bed { get; }

    public NetworkNamespace Outside { get; } = NetworkNamespace.Create();

    public NetworkNamespace Container => Bed.Container;

    public NetworkNamespace Host => Bed.Host;

    /// <summary>A program in the container, of its owner's.</summary>
    public Command Inside(string program, params string[] arguments) => new Command(program, arguments).In(Bed.Container).As(Bed.Owner);

    /// <summary>All that the container's kernel has of rules, routes, filters and settings that have to do with clients' addresses.</summary>
    public string State(bool filters = false)
    {
        List<string> parts =
        [
            InContainer("rule"), InContainer("-6", "rule"), InContainer("-4", "route", "show", "table", "all"),
            // Link-local addresses come by themselves, a little later.
            string.Concat(InContainer("-6", "route", "show", "table", "all").Split('\n').Where(line => !line.Contains("fe80"))),
            .. new[] { "ipv4/tcp_fwmark_accept", "ipv4/fwmark_reflect", "ipv6/fwmark_reflect" }.Select(Setting),
        ];
        if (filters)
            parts.Add(Inside("nft", "list", "ruleset").RunOrFail());
        return string.Join("---\n", parts);
    }

    public string Setting(string name) => Bed.Container.Run(() => File.ReadAllText($"/proc/sys/net/{name}"));

    public string InContainer(params string[] arguments) => Inside("ip", arguments).RunOrFail();

    void OnHost(params string[] arguments) => new Command("ip", ["-n", Bed.Host.Name!, .. arguments]).RunOrFail();

    /// <summary>A TCP connection from the client to a port of the host, from a port of its own if that matters.</summary>
    public Socket Connect(string address, int port, int from = 0) => Connect(Outside, address, port, from);

    public static Socket Connect(NetworkNamespace client, string address, int port, int from = 0)
    {
        IPAddress to = IPAddress.Parse(address);
        Socket socket = client.NewSocket(to.AddressFamily, SocketType.Stream);
        socket.NoDelay = true;
        socket.SendTimeout = socket.ReceiveTimeout = 20_000;
        if (from != 0)
        {
            socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.ReuseAddress, true);
            socket.Bind(new IPEndPoint(to.AddressFamily == AddressFamily.InterNetwork ? IPAddress.Any : IPAddress.IPv6Any, from));
        }

        socket.Connect(to, port);
        return socket;
    }

    public void Dispose()
    {
        Bed.Dispose();
        Outside.Dispose();
    }
}

/// <summary>Endpoints as tests compare them: IPv4 as such, and without the interface of a link-local address.</summary>
static class Endpoints
{
    public static IPEndPoint Plain(this EndPoint? endpoint)
    {
        IPEndPoint ip = (IPEndPoint)endpoint!;
        IPAddress address = ip.Address.IsIPv4MappedToIPv6 ? ip.Address.MapToIPv4() : ip.Address.IsIPv6LinkLocal ? new IPAddress(ip.Address.GetAddressBytes()) : ip.Address;
        return new(address, ip.Port);
    }

    public static IPEndPoint Here(this Socket socket) => socket.LocalEndPoint.Plain();

    /// <summary>The one client that a server has seen.</summary>
    public static IPEndPoint OnlyPeer(this TcpService service) => Assert.Single(service.Peers).Plain();
}
