using System.Net;
using System.Net.Sockets;
using Pesto.Tests.Faults;
using Pesto.Tests.Harness;

namespace Pesto.Tests.ClientAddress;

/// <summary>
/// A client that is not on the host's loopback never comes from 127.0.0.1 or ::1, in any mode but the one that is called so, whatever
/// fails: programs take who comes from there for a local user (CVE-2021-20199).
/// </summary>
public sealed class NeverLoopbackTests
{
    /// <summary>What goes before the forwarder, so that a part of the set-up fails.</summary>
    static readonly Dictionary<string, string[]> Failures = new()
    {
        ["nothing"] = [],
        ["no CAP_NET_ADMIN"] = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-all"],
        ["no CAP_NET_RAW"] = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-all"],
        ["neither"] = ["setpriv", "--bounding-set=-net_raw,-net_admin", "--inh-caps=-all"],
        ["settings can't be written"] = ["unshare", "-m", "sh", "-c", "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys && exec \"$@\"", "sh"],
    };

    public static readonly TheoryData<string, string, bool> Cases = new(
        from failure in (string[])[.. Failures.Keys, "no nf_tables", "no netlink", "sockets can't be marked", "sockets can't be bound"]
        from mode in new[] { "auto", "keep", "container", "proxy", "proxy-v1" }
        from bridged in new[] { false, true }
        where bridged || failure is "nothing" or "no CAP_NET_ADMIN" or "no CAP_NET_RAW" or "no netlink"
        select (failure, mode, bridged));

    [Theory]
    [MemberData(nameof(Cases))]
    public void It_never_comes_from_loopback(string failure, string mode, bool bridged)
    {
        using Surroundings around = new(bridged: bridged);
        using TcpService tcpV4 = Recorder(around, "0.0.0.0"), tcpV6 = Recorder(around, "::1");
        using UdpEcho udpV4 = new(around.Container, new IPEndPoint(IPAddress.Any, 80)), udpV6 = new(around.Container, new IPEndPoint(IPAddress.IPv6Loopback, 80));
        using Preload preload = new();
        string[] before = Failures.TryGetValue(failure, out string[]? command) ? command : preload.Before;
        // A socket of that protocol of netlink(7), by the number that the preloaded library looks for.
        if (failure == "no nf_tables")
            preload.FailSockets(family: 16, protocol: 12, Pesto.Linux.Errno.EAFNOSUPPORT);
        if (failure == "no netlink")
            preload.FailSockets(family: 16, protocol: 0, Pesto.Linux.Errno.EAFNOSUPPORT);
        using BackgroundProcess serve = Start(around, before, mode);
        if (failure == "sockets can't be marked")
            preload.Fail("setsockopt", 0, 1_000_000, Pesto.Linux.Errno.EPERM, 0);
        if (failure == "sockets can't be bound")
            preload.Fail("bind", 0, 1_000_000, Pesto.Linux.Errno.EADDRNOTAVAIL, 0);

        bool serves = !serve.HasEnded;
        foreach (string host in new[] { Surroundings.HostV4, Surroundings.HostV6 })
        {
            for (int i = 0; serves && i < 3; i++)
            {
                Ask(around, host);
                using Socket datagram = around.Outside.ConnectUdp(new IPEndPoint(IPAddress.Parse(host), 8080));
                datagram.Send("question"u8);
            }
        }

        preload.Stop();
        if (serves)
        {
            // What comes after them shows that they have been dealt with, and that clients on loopback are served, from there.
            using Socket local = around.Host.Connect(8080), localUdp = around.Host.ConnectUdp(8080);
            local.Send("question"u8);
            localUdp.Send("question"u8);
            Eventually.True(() => tcpV4.Peers.Any(Loopback) && udpV4.Peers.Any(Loopback), "clients on loopback are there");
        }

        Assert.Equal((serves ? 1 : 0, 0), (tcpV4.Peers.Count(Loopback), tcpV6.Peers.Count(Loopback)));
        Assert.Equal((serves ? 1 : 0, 0), (udpV4.Peers.Count(Loopback), udpV6.Peers.Count(Loopback)));
        Assert.True(serves || mode == "keep", $"{serve.Errors}");
    }

    static bool Loopback(IPEndPoint peer) => IPAddress.IsLoopback(peer.Plain().Address);

    static TcpService Recorder(Surroundings around, string address) => TcpService.Echo(around.Container, new IPEndPoint(IPAddress.Parse(address), 80));

    /// <summary>Until it serves, or, where an address must be kept and can't be, has ended.</summary>
    static BackgroundProcess Start(Surroundings around, string[] before, string mode)
    {
        string pid = around.Bed.Folder["pid"];
        string[] words = [.. before, around.Bed.Program, "serve", "-f", "-P", pid, "--netns", around.Container.Name!, "-t", "8080:80", "-u", "8080:80", "--client-address", mode];
        BackgroundProcess serve = new Command(words[0], words[1..]).In(around.Host).Start();
        Eventually.True(() => serve.HasEnded || (serve.Errors.Contains("serving:") && File.Exists(pid)), "it serves");
        return serve;
    }

    static void Ask(Surroundings around, string host)
    {
        try
        {
            using Socket client = around.Connect(host, 8080);
            client.Send("question"u8);
            _ = client.Receive(new byte[100]);
        }
        catch (SocketException e) when (e.SocketErrorCode == SocketError.ConnectionReset)
        {
            // Refused, which is right where there is no address to come from.
        }
    }
}
