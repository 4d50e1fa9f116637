namespace Pesto.Bench.Compare;

/// <summary>
/// The network of a comparison. This process's namespace is the host's, where the forwarder is; the server is in the target
/// namespace, remote clients in a third. Veth pairs join host and clients, and host and target: the latter for forwarders that
/// can't enter a namespace, for the kernel's own, and for none.
/// </summary>
static class Topology
{
    public const string Target = "target";

    /// <summary>A namespace with nothing but loopback, for forwarders that bring an interface of their own.</summary>
    public const string Bare = "bare";

    public const string Loopback = "127.0.0.1";

    public const string HostAddress = "10.213.0.1";

    public const string TargetAddress = "10.213.0.2";

    /// <summary>The host as remote clients see it, and the interface by which they come.</summary>
    public const string OutsideAddress = "10.214.0.1";

    public const string OutsideInterface = "to-client";

    public const string ClientAddress = "10.214.0.2";

    /// <summary>What the client connects to.</summary>
    public const ushort ListenPort = 8080;

    /// <summary>What the server listens on.</summary>
    public const ushort ServerPort = 80;

    public const string TargetNamespace = "/run/netns/" + Target;

    public const string BareNamespace = "/run/netns/" + Bare;

    const string Client = "client";

    /// <summary>What is being run now.</summary>
    public static Scene Scene { get; private set; } = new(Clients.Local, "cubic");

    /// <summary>What forwarders listen on, and clients connect to.</summary>
    public static string ListenAddress => Scene.Clients == Clients.Local ? Loopback : OutsideAddress;

    /// <summary>The start of a command line that runs in the clients' namespace.</summary>
    public static string[] InClientNamespace => Scene.Clients == Clients.Local ? [] : ["nsenter", "--net=/run/netns/" + Client];

    public static void SetUp()
    {
        Tool.Run("ip", "link", "set", "lo", "up");
        foreach (string name in new[] { Target, Bare, Client })
        {
            Tool.Run("ip", "netns", "add", name);
            Tool.Run("ip", "-n", name, "link", "set", "lo", "up");
        }

        Join("to-target", HostAddress, Target, TargetAddress);
        Join(OutsideInterface, OutsideAddress, Client, ClientAddress);
        Tool.Run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1");
        // pasta takes the interface with the default route for the one to copy.
        Tool.Run("ip", "route", "add", "default", "via", ClientAddress);
        TuneConnections("sysctl");
        foreach (string name in new[] { Target, Bare, Client })
            TuneConnections("nsenter", "--net=/run/netns/" + name, "sysctl");
    }

    /// <summary>Has what is started from now on run in another scene.</summary>
    public static void Enter(Scene scene)
    {
        Scene = scene;
        UseCongestionControl();
        foreach (string name in new[] { Target, Bare, Client })
            UseCongestionControl("nsenter", "--net=/run/netns/" + name);
    }

    /// <summary>Also for namespaces that a forwarder makes: new ones take it from the machine's first.</summary>
    public static void UseCongestionControl(params string[] within)
    {
        (int status, string text) = Tool.Try([.. within, "sysctl", "-q", "-w", "net.ipv4.tcp_congestion_control=" + Scene.Congestion]);
        // Namespaces other than the first may use only those that the machine allows to everybody.
        if (status != 0)
        {
            throw new InvalidOperationException(
                $"{Scene.Congestion} can't be used: {text.Trim()}; as root, add it to those allowed: sysctl net.ipv4.tcp_allowed_congestion_control=\"reno {Scene.Congestion} ...\"");
        }
    }

    static void Join(string link, string address, string other, string otherAddress)
    {
        Tool.Run("ip", "link", "add", link, "type", "veth", "peer", "name", "to-host", "netns", other);
        Tool.Run("ip", "addr", "add", address + "/24", "dev", link);
        Tool.Run("ip", "link", "set", link, "up");
        Tool.Run("ip", "-n", other, "addr", "add", otherAddress + "/24", "dev", "to-host");
        Tool.Run("ip", "-n", other, "link", "set", "to-host", "up");
        Tool.Run("ip", "-n", other, "route", "add", "default", "via", address);
    }

    // So that the connection rate of one forwarder isn't that of who came before: enough ports, and few connections that linger.
    static void TuneConnections(params string[] sysctl) => Tool.Run(
    [
        .. sysctl, "-q", "-w", "net.ipv4.ip_local_port_range=30000 65000", "net.ipv4.tcp_tw_reuse=1", "net.ipv4.tcp_max_tw_buckets=4096",
    ]);

    /// <summary>Whether a socket on the host side listens on the port that the client uses.</summary>
    public static bool IsListening(Transport transport)
    {
        // "sl local_address rem_address st", addresses as ADDRESS:PORT in hexadecimal; 0A is listening, 07 an unconnected UDP socket.
        string protocol = transport == Transport.Tcp ? "tcp" : "udp";
        string state = transport == Transport.Tcp ? "0A" : "07";
        return new[] { protocol, protocol + "6" }.SelectMany(name => File.ReadLines("/proc/self/net/" + name).Skip(1))
            .Select(line => line.Split(' ', StringSplitOptions.RemoveEmptyEntries))
            .Any(fields => fields[1].EndsWith($":{ListenPort:X4}", StringComparison.Ordinal) && fields[3] == state);
    }
}

enum Transport
{
    Tcp,
    Udp,
}
