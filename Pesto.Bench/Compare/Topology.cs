namespace Pesto.Bench.Compare;

/// <summary>
/// The network of a comparison. This process's namespace is the host's, where client and forwarder are; the server is in the
/// target namespace. A veth pair joins them for forwarders that can't enter a namespace, for the kernel's own, and for none.
/// </summary>
static class Topology
{
    public const string Target = "target";

    public const string Loopback = "127.0.0.1";

    public const string HostAddress = "10.213.0.1";

    public const string TargetAddress = "10.213.0.2";

    /// <summary>What the client connects to.</summary>
    public const ushort ListenPort = 8080;

    /// <summary>What the server listens on.</summary>
    public const ushort ServerPort = 80;

    public const string TargetNamespace = "/run/netns/" + Target;

    public static void SetUp()
    {
        Tool.Run("ip", "link", "set", "lo", "up");
        Tool.Run("ip", "netns", "add", Target);
        Tool.Run("ip", "-n", Target, "link", "set", "lo", "up");
        Tool.Run("ip", "link", "add", "to-target", "type", "veth", "peer", "name", "to-host", "netns", Target);
        Tool.Run("ip", "addr", "add", HostAddress + "/24", "dev", "to-target");
        Tool.Run("ip", "link", "set", "to-target", "up");
        Tool.Run("ip", "-n", Target, "addr", "add", TargetAddress + "/24", "dev", "to-host");
        Tool.Run("ip", "-n", Target, "link", "set", "to-host", "up");
        TuneConnections("sysctl");
        TuneConnections("nsenter", "--net=" + TargetNamespace, "sysctl");
    }

    // So that the connection rate of one forwarder isn't that of who came before: enough ports, and few connections that linger.
    static void TuneConnections(params string[] sysctl) => Tool.Run(
    [
        .. sysctl, "-q", "-w", "net.ipv4.ip_local_port_range=30000 65000", "net.ipv4.tcp_tw_reuse=1", "net.ipv4.tcp_max_tw_buckets=4096",
    ]);

    /// <summary>Whether somebody on the host side listens on the port that the client uses.</summary>
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
