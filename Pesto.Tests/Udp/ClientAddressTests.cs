using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using Pesto.Tests.Faults;
using Pesto.Tests.Harness;
using Errno = Pesto.Linux.Errno;

namespace Pesto.Tests.Udp;

/// <summary>What a target sees of a client that is not on the host's loopback.</summary>
public sealed class ClientAddressTests
{
    /// <summary>A client in a network of its own, next to the host, and a container that has a bridge's address and a default route, or nothing but loopback.</summary>
    sealed class Network : IDisposable
    {
        readonly NetworkNamespace _bridge = NetworkNamespace.Create();

        public Network(bool withBridge, Account? owner = null)
        {
            Bed = new(owner);
            Outside.Link(Bed.Host, ["10.1.0.2/24", "fd01::2/64", "fe80::2/64"], ["10.1.0.1/24", "10.1.0.8/24", "fd01::1/64", "fe80::1/64"]);
            if (!withBridge)
                return;
            _bridge.Link(Bed.Container, ["10.5.0.1/24", "fd05::1/64"], ["10.5.0.2/24", "fd05::2/64"]);
            new Command("ip", "-n", Bed.Container.Name!, "route", "add", "default", "via", "10.5.0.1").RunOrFail();
            new Command("ip", "-n", Bed.Container.Name!, "route", "add", "default", "via", "fd05::1").RunOrFail();
        }

        public Testbed Bed { get; }

        public NetworkNamespace Outside { get; } = NetworkNamespace.Create();

        /// <summary>Beyond the container's gateway.</summary>
        public NetworkNamespace Bridge => _bridge;

        public Socket Client(string to, int port = 0)
        {
            IPEndPoint at = IPEndPoint.Parse(to);
            Socket socket = Outside.NewSocket(at.AddressFamily, SocketType.Dgram);
            socket.SendTimeout = socket.ReceiveTimeout = 20_000;
            if (port != 0)
                socket.Bind(new IPEndPoint(at.AddressFamily == AddressFamily.InterNetwork ? IPAddress.Any : IPAddress.IPv6Any, port));
            socket.Connect(at);
            return socket;
        }

        public void Dispose()
        {
            Bed.Dispose();
            Outside.Dispose();
            _bridge.Dispose();
        }
    }

    public static readonly TheoryData<bool, string, string> Servers = new(
        from withBridge in new[] { false, true }
        from pair in new[]
        {
            ("0.0.0.0", "10.1.0.1"), ("127.0.0.1", "10.1.0.1"), ("::", "10.1.0.1"), ("::", "[fd01::1]"), ("::1", "[fd01::1]"),
        }
        select (withBridge, pair.Item1, pair.Item2));

    [Theory]
    [MemberData(nameof(Servers))]
    public void It_sees_the_clients_own_address_and_port(bool withBridge, string server, string host)
    {
        using Network network = new(withBridge);
        using RunningForwarder pesto = network.Bed.Serve("--client-address", "keep", "-u", "5353:53");
        using UdpEcho echo = new(network.Bed.Container, new IPEndPoint(IPAddress.Parse(server), 53));
        using Socket client = network.Client($"{host}:5353");
        for (int i = 0; i < 3; i++)
            Assert.Equal("question", client.Exchange("question"));
        Assert.Equal([Here(client)], Seen(echo));
        Assert.Equal((3, 3, 0), Moved(pesto));
    }

    [Fact]
    public void An_ordinary_users_container_sees_it_too()
    {
        Account.NeedOrdinary();
        using Network network = new(withBridge: false, Account.Ordinary);
        using RunningForwarder pesto = network.Bed.Serve("--client-address", "keep", "-u", "5353:53");
        using UdpEcho echo = new(network.Bed.Container, new IPEndPoint(IPAddress.IPv6Any, 53));
        using Socket v4 = network.Client("10.1.0.1:5353"), v6 = network.Client("[fd01::1]:5353");
        Assert.Equal("question", v4.Exchange("question"));
        Assert.Equal("question", v6.Exchange("question"));
        Assert.Equal([Here(v4), Here(v6)], Seen(echo));
    }

    [Fact]
    public void A_client_of_the_hosts_loopback_stays_on_loopback()
    {
        using Network network = new(withBridge: true);
        using RunningForwarder pesto = network.Bed.Serve("--client-address", "keep", "-u", "5353:53");
        using UdpEcho echo = new(network.Bed.Container, 53);
        using Socket client = network.Bed.Host.ConnectUdp(5353);
        Assert.Equal("question", client.Exchange("question"));
        Assert.Equal(IPAddress.Loopback, Seen(echo).Single().Address);
    }

    [Theory]
    [InlineData("fe80::1", "fe80::2")]
    [InlineData("10.1.0.1", "10.1.0.2")]
    public void A_port_below_1024_and_an_address_of_one_link_are_kept(string host, string expected)
    {
        const int Port = 500;
        using Network network = new(withBridge: true);
        using RunningForwarder pesto = network.Bed.Serve("--client-address", "keep", "-u", "5353:53");
        using UdpEcho echo = new(network.Bed.Container, new IPEndPoint(IPAddress.IPv6Any, 53));
        string scope = network.Outside.Run(() => System.Net.NetworkInformation.NetworkInterface.GetAllNetworkInterfaces().First(each => each.Name.StartsWith("veth")).Name);
        IPEndPoint at = network.Outside.Run(() => new IPEndPoint(IPAddress.Parse(host.Contains(':') ? $"{host}%{scope}" : host), 5353));
        using Socket client = network.Outside.NewSocket(at.AddressFamily, SocketType.Dgram);
        client.ReceiveTimeout = 20_000;
        client.Bind(new IPEndPoint(at.AddressFamily == AddressFamily.InterNetwork ? IPAddress.Any : IPAddress.IPv6Any, Port));
        client.Connect(at);
        Assert.Equal("question", client.Exchange("question"));
        IPEndPoint seen = Seen(echo).Single();
        Assert.Equal((expected, Port), (seen.Address.ToString().Split('%')[0], seen.Port));
    }

    [Fact]
    public void A_client_of_two_ports_comes_from_one_address_and_each_flow_gets_its_own_replies()
    {
        using Network network = new(withBridge: true);
        using RunningForwarder pesto = network.Bed.Serve("--client-address", "keep", "-u", "5353:53", "-u", "5454:54");
        using UdpEcho one = new(network.Bed.Container, new IPEndPoint(IPAddress.Any, 53)), other = new(network.Bed.Container, new IPEndPoint(IPAddress.Any, 54));
        using Socket client = network.Outside.NewSocket(AddressFamily.InterNetwork, SocketType.Dgram);
        client.ReceiveTimeout = 20_000;
        for (int round = 0; round < 3; round++)
        {
            foreach (int port in new[] { 5353, 5454 })
            {
                IPEndPoint at = new(IPAddress.Parse("10.1.0.1"), port);
                client.SendTo([1, 2, 3], at);
                EndPoint from = new IPEndPoint(IPAddress.Any, 0);
                Assert.Equal(3, client.ReceiveFrom(new byte[10], ref from));
                Assert.Equal(at, from);
            }
        }

        IPEndPoint first = Seen(one).Single(), second = Seen(other).Single();
        Assert.Equal((IPAddress.Parse("10.1.0.2"), ((IPEndPoint)client.LocalEndPoint!).Port), (first.Address, first.Port));
        Assert.Equal(first.Address, second.Address);
        Assert.NotEqual(first.Port, second.Port);
    }

    [Fact]
    public void A_client_from_the_port_that_the_service_has_keeps_its_address()
    {
        using Network network = new(withBridge: true);
        using RunningForwarder pesto = network.Bed.Serve("--client-address", "keep", "-u", "5060");
        using UdpEcho echo = new(network.Bed.Container, new IPEndPoint(IPAddress.Any, 5060));
        using Socket client = network.Client("10.1.0.1:5060", port: 5060);
        Assert.Equal("question", client.Exchange("question"));
        Assert.Equal(IPAddress.Parse("10.1.0.2"), Seen(echo).Single().Address);
    }

    [Theory]
    [InlineData("keep", "10.1.0.1")]
    [InlineData("keep", "[fd01::1]")]
    [InlineData("container", "10.1.0.1")]
    [InlineData("container", "[fd01::1]")]
    public void A_target_that_nobody_listens_on_ends_the_flow(string mode, string host)
    {
        using Network network = new(withBridge: true);
        using RunningForwarder pesto = network.Bed.Serve("--client-address", mode, "-u", "5353:53");
        using Socket client = network.Client($"{host}:5353");
        client.Send([1]);
        Eventually.Equal(1, () => pesto.Statistic("udp_refused"));
        Assert.Equal(0, pesto.Statistic("udp_open"));
        using UdpEcho echo = new(network.Bed.Container, new IPEndPoint(IPAddress.IPv6Any, 53));
        Assert.Equal("question", client.Exchange("question"));
    }

    [Theory]
    [InlineData("0.0.0.0", "10.1.0.1", "10.5.0.2")]
    [InlineData("127.0.0.1", "10.1.0.1", "10.5.0.2")]
    [InlineData("::", "[fd01::1]", "fd05::2")]
    [InlineData("::1", "[fd01::1]", "fd05::2")]
    public void It_sees_the_containers_own_address(string server, string host, string expected)
    {
        using Network network = new(withBridge: true);
        using RunningForwarder pesto = network.Bed.Serve("--client-address", "container", "-u", "5353:53");
        using UdpEcho echo = new(network.Bed.Container, new IPEndPoint(IPAddress.Parse(server), 53));
        using Socket client = network.Client($"{host}:5353");
        for (int i = 0; i < 3; i++)
            Assert.Equal("question", client.Exchange("question"));
        Assert.Equal(IPAddress.Parse(expected), Seen(echo).Single().Address);
    }

    [Fact]
    public void A_container_without_an_address_of_its_own_refuses_clients_rather_than_show_them_as_loopback()
    {
        using Network network = new(withBridge: false);
        using RunningForwarder pesto = network.Bed.Serve("--client-address", "container", "-u", "5353:53");
        using UdpEcho echo = new(network.Bed.Container, new IPEndPoint(IPAddress.IPv6Any, 53));
        using Socket v4 = network.Client("10.1.0.1:5353"), v6 = network.Client("[fd01::1]:5353"), near = network.Bed.Host.ConnectUdp(5353);
        v4.Send([1]);
        v6.Send([1]);
        Eventually.Equal(2, () => pesto.Statistic("address_refused"));
        Assert.Equal("question", near.Exchange("question"));
        Assert.Equal((1, 2), (echo.Received, pesto.Statistic("udp_dropped")));
    }

    public static readonly TheoryData<string, string, Errno> Failures = new(
        from mode in new[] { "auto", "keep", "container", "proxy", "proxy-v1" }
        from failure in new[] { ("setsockopt", Errno.EPERM), ("bind", Errno.EPERM), ("bind", Errno.EADDRINUSE), ("bind", Errno.EADDRNOTAVAIL), ("connect", Errno.ENETUNREACH) }
        select (mode, failure.Item1, failure.Item2));

    [Theory]
    [MemberData(nameof(Failures))]
    public void Whatever_fails_it_sees_no_client_of_another_host_as_loopback(string mode, string function, Errno error)
    {
        const int Once = 1, Always = 1_000_000, Requests = 3;
        using Network network = new(withBridge: true);
        using Preload preload = new();
        using RunningForwarder pesto = network.Bed.ServeBehind(preload.Before, "--client-address", mode, "-u", "5353:53");
        using UdpEcho echo = new(network.Bed.Container, new IPEndPoint(IPAddress.IPv6Any, 53));
        int lowest = pesto.Process.Descriptors, sent = 0;
        foreach (int times in new[] { Once, Always })
        {
            preload.Fail(function, 0, times, error, lowest);
            foreach (string host in new[] { "10.1.0.1", "[fd01::1]" })
            {
                using Socket client = network.Client($"{host}:5353");
                for (int i = 0; i < Requests; i++, sent++)
                    client.Send([1]);
            }

            Eventually.Equal(sent, () => pesto.Statistic("datagrams_in") + pesto.Statistic("udp_dropped"));
            preload.Stop();
        }

        foreach (string host in new[] { "10.1.0.1", "[fd01::1]" })
        {
            using Socket client = network.Client($"{host}:5353");
            client.Send([1]);
            Assert.NotEqual(0, client.Receive(new byte[1024]));
        }

        Assert.DoesNotContain(Seen(echo), peer => IPAddress.IsLoopback(peer.Address));
    }

    /// <summary>As of a host that asks for its address: sockets that are bound to 0.0.0.0 send from loopback, and what is sent to 0.0.0.0 comes to loopback.</summary>
    [Theory]
    [InlineData("keep")]
    [InlineData("loopback")]
    public void A_datagram_from_nowhere_gets_no_flow(string mode)
    {
        using Network network = new(withBridge: true);
        using NetworkNamespace nowhere = NetworkNamespace.Create();
        string device = nowhere.Link(network.Bed.Host, [], ["10.9.0.1/24"]);
        using RunningForwarder pesto = network.Bed.Serve("--client-address", mode, "-u", "5353:53");
        using UdpEcho echo = new(network.Bed.Container, new IPEndPoint(IPAddress.Any, 53));
        using Socket client = nowhere.NewSocket(AddressFamily.InterNetwork, SocketType.Dgram);
        const int SolSocket = 1, BindToDevice = 25;
        client.EnableBroadcast = true;
        client.SetRawSocketOption(SolSocket, BindToDevice, System.Text.Encoding.ASCII.GetBytes(device));
        client.SendTo([1], new IPEndPoint(IPAddress.Broadcast, 5353));
        Eventually.Equal(1, () => pesto.Statistic("udp_dropped"));
        Assert.Equal((0, 0), (pesto.Statistic("udp_total"), echo.Received));
    }

    /// <summary>A stranger who guesses the port of a flow's socket, and sends from the port of the service.</summary>
    [Fact]
    public void Only_the_target_can_reply()
    {
        using Network network = new(withBridge: true);
        using RunningForwarder pesto = network.Bed.Serve("--client-address", "container", "-u", "5353:53");
        using UdpEcho echo = new(network.Bed.Container, new IPEndPoint(IPAddress.Any, 53));
        using Socket client = network.Client("10.1.0.1:5353");
        Assert.Equal("question", client.Exchange("question"));
        using Socket stranger = network.Bridge.NewSocket(AddressFamily.InterNetwork, SocketType.Dgram);
        stranger.Bind(new IPEndPoint(IPAddress.Any, 53));
        stranger.SendTo("false"u8, Seen(echo).Single());
        Eventually.Equal(1, () => pesto.Statistic("udp_dropped"));
        Assert.Equal("again", client.Exchange("again"));
    }

    [Theory]
    [InlineData("10.1.0.1")]
    [InlineData("[fd01::1]")]
    public void Every_datagram_tells_the_client_by_the_PROXY_protocol(string host)
    {
        using Network network = new(withBridge: true);
        using RunningForwarder pesto = network.Bed.Serve("--client-address", "proxy", "-u", "5353:53");
        using Socket target = network.Bed.Container.NewSocket(AddressFamily.InterNetworkV6, SocketType.Dgram);
        target.DualMode = true;
        target.ReceiveTimeout = 20_000;
        target.Bind(new IPEndPoint(IPAddress.IPv6Any, 53));
        using Socket client = network.Client($"{host}:5353");
        byte[] header = ProxyHeader(Here(client), (IPEndPoint)client.RemoteEndPoint!), buffer = new byte[65536];
        foreach (int size in new[] { 0, 1, 1400 })
        {
            byte[] payload = Enumerable.Repeat((byte)size, size).ToArray();
            client.Send(payload);
            EndPoint from = new IPEndPoint(IPAddress.IPv6Any, 0);
            Assert.Equal([.. header, .. payload], buffer[..target.ReceiveFrom(buffer, ref from)]);
            target.SendTo([7], from);
            Assert.Equal((1, 7), (client.Receive(buffer), buffer[0]));
        }

        // Datagrams that the kernel hands over as one.
        const int SolUdp = 17, UdpSegment = 103, Size = 1000, Count = 40;
        byte[] segments = [.. Enumerable.Range(0, (Size * (Count - 1)) + 100).Select(i => (byte)(i / 7))];
        client.SetRawSocketOption(SolUdp, UdpSegment, BitConverter.GetBytes(Size));
        client.Send(segments);
        foreach (byte[] payload in segments.Chunk(Size))
            Assert.Equal([.. header, .. payload], buffer[..target.Receive(buffer)]);
        Assert.Equal((Count + 3, 3, 0), Moved(pesto));
    }

    [Theory]
    [InlineData("127.0.0.1", true)]
    [InlineData("10.1.0.1", true)]
    [InlineData("10.1.0.1", false)]
    public void So_it_is_for_a_target_that_is_an_address(string host, bool isThere)
    {
        using Network network = new(withBridge: false);
        // In this case the target is on another host, and that is the client's.
        using RunningForwarder pesto = network.Bed.ServeOnHost("--target", isThere ? "127.0.0.1" : "10.1.0.2", "--client-address", "proxy", "-u", "5353:53");
        using Socket target = (isThere ? network.Bed.Host : network.Outside).NewSocket(AddressFamily.InterNetwork, SocketType.Dgram);
        target.ReceiveTimeout = 20_000;
        target.Bind(new IPEndPoint(IPAddress.Any, 53));
        IPEndPoint at = new(IPAddress.Parse(host), 5353);
        using Socket client = IPAddress.IsLoopback(at.Address) ? network.Bed.Host.ConnectUdp(at) : network.Client(at.ToString());
        byte[] buffer = new byte[100];
        EndPoint from = new IPEndPoint(IPAddress.Any, 0);
        client.Send([9]);
        Assert.Equal([.. ProxyHeader(Here(client), at), 9], buffer[..target.ReceiveFrom(buffer, ref from)]);
        target.SendTo([7], from);
        Assert.Equal((1, 7), (client.Receive(buffer), buffer[0]));
    }

    [Theory]
    [InlineData("10.1.0.1")]
    [InlineData("[fd01::1]")]
    public void Segments_stay_segments(string host)
    {
        const int SolUdp = 17, UdpSegment = 103, UdpGro = 104, Size = 1200, Count = 40;
        using Network network = new(withBridge: true);
        using RunningForwarder pesto = network.Bed.Serve("--client-address", "keep", "-u", "5353:53");
        using Socket target = network.Bed.Container.NewSocket(AddressFamily.InterNetworkV6, SocketType.Dgram);
        target.DualMode = true;
        target.ReceiveTimeout = 20_000;
        target.Bind(new IPEndPoint(IPAddress.IPv6Any, 53));
        using Socket client = network.Client($"{host}:5353");
        target.SetRawSocketOption(SolUdp, UdpGro, BitConverter.GetBytes(1));
        byte[] segments = [.. Enumerable.Range(0, (Size * (Count - 1)) + 100).Select(i => (byte)(i / 7))], buffer = new byte[65536];

        client.SetRawSocketOption(SolUdp, UdpSegment, BitConverter.GetBytes(Size));
        client.Send(segments);
        EndPoint from = new IPEndPoint(IPAddress.IPv6Any, 0);
        Assert.Equal(segments, buffer[..target.ReceiveFrom(buffer, ref from)]);
        target.SetRawSocketOption(SolUdp, UdpSegment, BitConverter.GetBytes(Size));
        target.SendTo(segments, from);
        foreach (byte[] datagram in segments.Chunk(Size))
            Assert.Equal(datagram, buffer[..client.Receive(buffer)]);
        Assert.Equal((Count, Count, 0), Moved(pesto));
    }

    /// <summary>For longer than flows and the kernel's notes of them live without traffic.</summary>
    [Fact]
    public void A_flow_in_which_only_the_target_speaks_goes_on()
    {
        using Network network = new(withBridge: true);
        using RunningForwarder pesto = network.Bed.Serve("--client-address", "keep", "-u", "5353:53", "--udp-timeout", "2", "--udp-stream-timeout", "2");
        using Socket target = network.Bed.Container.NewSocket(AddressFamily.InterNetwork, SocketType.Dgram);
        target.ReceiveTimeout = 20_000;
        target.Bind(new IPEndPoint(IPAddress.Any, 53));
        using Socket client = network.Client("10.1.0.1:5353");
        client.Send([0]);
        EndPoint from = new IPEndPoint(IPAddress.Any, 0);
        target.ReceiveFrom(new byte[1], ref from);
        byte[] buffer = new byte[1];
        for (byte i = 1; i <= 20; i++)
        {
            target.SendTo([i], from);
            Assert.Equal((1, i), (client.Receive(buffer), buffer[0]));
            Thread.Sleep(200);
        }

        Assert.Equal(1, pesto.Statistic("udp_total"));
    }

    /// <summary>The kernel's own notes would last for a day.</summary>
    [Theory]
    [InlineData("10.1.0.1", "10.1.0.2/32")]
    [InlineData("[fd01::1]", "fd01::2/128")]
    public void Once_its_flow_has_ended_what_the_service_sends_to_a_client_leaves_by_the_gateway(string host, string beyond)
    {
        using Network network = new(withBridge: true);
        new Command("ip", "-n", network.Bridge.Name!, "address", "add", beyond, "dev", "lo").RunOrFail();
        using RunningForwarder pesto = network.Bed.Serve("--client-address", "keep", "-u", "5353:53", "--udp-timeout", "86400", "--udp-stream-timeout", "0.5");
        using Socket target = network.Bed.Container.NewSocket(AddressFamily.InterNetworkV6, SocketType.Dgram);
        target.DualMode = true;
        target.ReceiveTimeout = 20_000;
        target.Bind(new IPEndPoint(IPAddress.IPv6Any, 53));
        using Socket client = network.Client($"{host}:5353");
        using Socket stranger = network.Bridge.NewSocket(client.AddressFamily, SocketType.Dgram);
        stranger.ReceiveTimeout = 20_000;
        stranger.Bind(new IPEndPoint(client.AddressFamily == AddressFamily.InterNetwork ? IPAddress.Any : IPAddress.IPv6Any, Here(client).Port));
        EndPoint from = new IPEndPoint(IPAddress.IPv6Any, 0);
        byte[] buffer = new byte[10];
        client.Send([1]);
        Assert.Equal(1, target.ReceiveFrom(buffer, ref from));
        target.SendTo([2], from);
        Assert.Equal((1, 2), (client.Receive(buffer), buffer[0]));
        Assert.Equal(0, stranger.Available);
        Eventually.Equal(0, () => pesto.Statistic("udp_open"));
        target.SendTo([3], from);
        Assert.Equal((1, 3), (stranger.Receive(buffer), buffer[0]));
        Assert.Equal(0, target.Available);
    }

    [Fact]
    public void A_hundred_thousand_exchanges_allocate_nothing()
    {
        using Network network = new(withBridge: true);
        using RunningForwarder pesto = network.Bed.Serve("--client-address", "keep", "-u", "5353:53");
        using UdpEcho echo = new(network.Bed.Container, new IPEndPoint(IPAddress.Any, 53));
        Socket[] clients = [.. Enumerable.Range(0, 50).Select(_ => network.Client("10.1.0.1:5353"))];
        Exchange(1_000);
        _ = pesto.Statistics();
        long before = pesto.Statistic("gc_bytes");
        Exchange(100_000);
        Assert.Equal(before, pesto.Statistic("gc_bytes"));
        Assert.Equal(101_000, pesto.Statistic("datagrams_out"));

        void Exchange(int count)
        {
            byte[] buffer = new byte[64];
            for (int done = 0; done < count; done += clients.Length)
            {
                foreach (Socket client in clients)
                    client.Send(buffer);
                foreach (Socket client in clients)
                    Assert.Equal(64, client.Receive(buffer));
            }
        }
    }

    [Theory]
    [InlineData("10.1.0.1")]
    [InlineData("[fd01::1]")]
    public void Two_thousand_clients_at_once_each_get_their_own_replies_beside_a_flood(string host)
    {
        const int Clients = 2000, FirstPort = 30_000, Rounds = 3, AtOnce = 100;
        using Network network = new(withBridge: true);
        using RunningForwarder pesto = network.Bed.Serve("--client-address", "keep", "-u", "5353:53", "-u", "5454:54");
        using UdpEcho echo = new(network.Bed.Container, new IPEndPoint(IPAddress.IPv6Any, 53));
        using Socket silent = network.Bed.Container.NewSocket(AddressFamily.InterNetworkV6, SocketType.Dgram);
        silent.DualMode = true;
        silent.Bind(new IPEndPoint(IPAddress.IPv6Any, 54));
        using Flood flood = new(network.Outside, IPEndPoint.Parse($"{host}:5454"));
        flood.WaitForMore(1000);
        Socket[] clients = [.. Enumerable.Range(FirstPort, Clients).Select(port => network.Client($"{host}:5353", port))];
        for (int round = 0; round < Rounds; round++)
        {
            foreach (Socket[] some in clients.Chunk(AtOnce))
            {
                foreach (Socket client in some)
                    client.Send(BitConverter.GetBytes((round * Clients) + Here(client).Port));
                foreach (Socket client in some)
                    Assert.Equal((round * Clients) + Here(client).Port, BitConverter.ToInt32(client.ReadExactly(4)));
            }
        }

        Assert.Equal(Enumerable.Range(FirstPort, Clients), Seen(echo).Select(peer => peer.Port).Order());
        Assert.Equal(0, pesto.Statistic("udp_dropped"));
        foreach (Socket client in clients)
            client.Dispose();
    }

    [Fact]
    public void Twenty_thousand_clients_in_turn_each_come_from_their_own_port()
    {
        const int Clients = 20_000, FirstPort = 20_000, AtOnce = 20;
        using Network network = new(withBridge: true);
        using RunningForwarder pesto = network.Bed.Serve("--client-address", "keep", "-u", "5353:53", "--udp-max-flows", "1000");
        using UdpEcho echo = new(network.Bed.Container, new IPEndPoint(IPAddress.Any, 53));
        foreach (int[] ports in Enumerable.Range(FirstPort, Clients).Chunk(AtOnce))
        {
            Socket[] clients = [.. ports.Select(port => network.Client("10.1.0.1:5353", port))];
            foreach (Socket client in clients)
                client.Send(BitConverter.GetBytes(Here(client).Port));
            foreach (Socket client in clients)
            {
                Assert.Equal(Here(client).Port, BitConverter.ToInt32(client.ReadExactly(4)));
                client.Dispose();
            }
        }

        Assert.Equal(Enumerable.Range(FirstPort, Clients), Seen(echo).Select(peer => peer.Port).Order());
        Assert.Equal((Clients, 0), (pesto.Statistic("udp_total"), pesto.Statistic("udp_dropped")));
    }

    static IPEndPoint Here(Socket client) => (IPEndPoint)client.LocalEndPoint!;

    /// <summary>Every peer once, as IPv4 where it is.</summary>
    static IPEndPoint[] Seen(UdpEcho echo) =>
        [.. echo.Peers.Select(peer => peer.Address.IsIPv4MappedToIPv6 ? new IPEndPoint(peer.Address.MapToIPv4(), peer.Port) : peer).Distinct()];

    static (long In, long Out, long Dropped) Moved(RunningForwarder pesto)
    {
        Dictionary<string, long> all = pesto.Statistics();
        return (all["datagrams_in"], all["datagrams_out"], all["udp_dropped"]);
    }

    /// <summary>As the specification of version 2 has it.</summary>
    static byte[] ProxyHeader(IPEndPoint from, IPEndPoint to)
    {
        bool isV4 = from.AddressFamily == AddressFamily.InterNetwork;
        byte[] ports = new byte[4];
        BinaryPrimitives.WriteUInt16BigEndian(ports, (ushort)from.Port);
        BinaryPrimitives.WriteUInt16BigEndian(ports.AsSpan(2), (ushort)to.Port);
        byte[] rest = [.. from.Address.GetAddressBytes(), .. to.Address.GetAddressBytes(), .. ports];
        return [.. "\r\n\r\n\0\r\nQUIT\n"u8, 0x21, (byte)(isV4 ? 0x12 : 0x22), 0, (byte)rest.Length, .. rest];
    }
}
