using System.Net;
using System.Net.Sockets;
using Pesto.Linux;
using Pesto.Rules;
using Pesto.Tests.Harness;
using SocketAddress = Pesto.Linux.SocketAddress;

namespace Pesto.Tests.Scan;

/// <summary>Both ways to list what waits for peers in a namespace find what is there, and nothing else.</summary>
public sealed class SocketListTests
{
    const byte Tcp = 6, Udp = 17;

    public static TheoryData<string> Ways => ["netlink", "files"];

    static ISocketList Open(NetworkNamespace where, string way) => where.Run<ISocketList>(() =>
    {
        if (way == "files")
            return new SocketFiles();
        SocketDiagnosis.Open(out SocketDiagnosis? list).OrThrow("sock_diag");
        return list!;
    });

    [Theory]
    [MemberData(nameof(Ways))]
    public void It_lists_who_waits_for_peers(string way)
    {
        using NetworkNamespace where = NetworkNamespace.Create();
        ISocketList list = Open(where, way);
        using TcpService v4 = TcpService.Echo(where, new IPEndPoint(IPAddress.Loopback, 80)), any = TcpService.Echo(where, new IPEndPoint(IPAddress.Any, 81));
        using TcpService v6 = TcpService.Echo(where, new IPEndPoint(IPAddress.Parse("::1"), 82));
        using UdpEcho datagrams = new(where, 53);
        using Socket connected = where.Connect(80), asker = where.ConnectUdp(53), unbound = where.NewSocket(AddressFamily.InterNetwork, SocketType.Stream);
        connected.Exchange("established");
        Assert.Equal(["0.0.0.0:81", "127.0.0.1:80"], Listed(list, Tcp, SocketAddress.V4));
        Assert.Equal(["::1:82"], Listed(list, Tcp, SocketAddress.V6));
        Assert.Equal(["127.0.0.1:53"], Listed(list, Udp, SocketAddress.V4));
        Assert.Equal([], Listed(list, Udp, SocketAddress.V6));
    }

    [Theory]
    [MemberData(nameof(Ways))]
    public void It_lists_thousands(string way)
    {
        using NetworkNamespace where = NetworkNamespace.Create();
        List<Socket> open = [];
        where.Run(() =>
        {
            for (int i = 0; i < 2000; i++)
            {
                Socket socket = new(SocketType.Stream, ProtocolType.Tcp);
                socket.Bind(new IPEndPoint(IPAddress.IPv6Any, 10_000 + i));
                socket.Listen();
                open.Add(socket);
            }

            return true;
        });
        ISocketList list = Open(where, way);
        // One that was begun and not read to its end is no hindrance.
        Assert.True(list.Begin(Tcp, SocketAddress.V6).Ok);
        Assert.Equal(1, list.Next(out _).Value);
        Assert.Equal(Enumerable.Range(10_000, 2000).Select(port => $":::{port}").Order(StringComparer.Ordinal), Listed(list, Tcp, SocketAddress.V6));
        open.ForEach(socket => socket.Dispose());
        // A program that another test starts just now may hold them for a moment.
        Eventually.True(() => !Listed(list, Tcp, SocketAddress.V6).Any(), "they are gone");
    }

    [Fact]
    public void The_kernel_tells_what_else_matters()
    {
        using NetworkNamespace where = NetworkNamespace.Create();
        ISocketList list = Open(where, "netlink");
        using Socket dual = Bound(false, 80), v6Only = Bound(true, 81), onLoopback = Bound(false, 82);
        Assert.True(Sockets.BindToDevice((int)onLoopback.Handle, "lo"u8).Ok);
        Dictionary<int, BoundSocket> found = All(list, Tcp, SocketAddress.V6).ToDictionary(socket => (int)socket.Port);
        Assert.True(Serves(80, Address.LoopbackV4) && Serves(80, Address.LoopbackV6));
        Assert.True(!Serves(81, Address.LoopbackV4) && Serves(81, Address.LoopbackV6));
        Assert.Equal(1u, found[82].Interface);

        bool Serves(int port, Address address) => ListenAddress.Of(IpProtocol.Tcp, found[port]).Serves(address);

        Socket Bound(bool v6Only, int port)
        {
            Socket socket = where.NewSocket(AddressFamily.InterNetworkV6, SocketType.Stream);
            socket.DualMode = !v6Only;
            socket.Bind(new IPEndPoint(IPAddress.IPv6Any, port));
            socket.Listen();
            return socket;
        }
    }

    static IEnumerable<string> Listed(ISocketList list, byte protocol, ushort family) =>
        All(list, protocol, family).Select(socket => $"{socket.Address}:{socket.Port}").Order(StringComparer.Ordinal);

    static List<BoundSocket> All(ISocketList list, byte protocol, ushort family)
    {
        List<BoundSocket> all = [];
        list.Begin(protocol, family).OrThrow("listing sockets");
        while (true)
        {
            Result next = list.Next(out BoundSocket socket);
            if (next.Is(Pesto.Linux.Errno.EAGAIN))
                continue;
            if (next.OrThrow("listing sockets") == 0)
                return all;
            all.Add(socket);
        }
    }
}
