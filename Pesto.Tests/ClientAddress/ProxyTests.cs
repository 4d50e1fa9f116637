using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using System.Text;
using Pesto.Tests.Harness;

namespace Pesto.Tests.ClientAddress;

/// <summary>The PROXY protocol before a stream. (UDP has tests of its own.)</summary>
public sealed class ProxyTests
{
    [Theory]
    [InlineData(Surroundings.HostV4, "PROXY TCP4 10.96.0.2 10.96.0.1 {0} 8080\r\n")]
    [InlineData(Surroundings.HostV6, "PROXY TCP6 fd96::2 fd96::1 {0} 8080\r\n")]
    [InlineData("127.0.0.1", "PROXY TCP4 127.0.0.1 127.0.0.1 {0} 8080\r\n")]
    public void Version_1_is_a_line_with_source_and_destination(string host, string expected)
    {
        using Surroundings around = new();
        using Recorded server = new(around, 80);
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80", "--client-address", "proxy-v1");
        using Socket client = Surroundings.Connect(host == "127.0.0.1" ? around.Host : around.Outside, host, 8080);
        client.Send("the stream"u8);
        client.Shutdown(SocketShutdown.Send);
        Assert.Equal(string.Format(System.Globalization.CultureInfo.InvariantCulture, expected, client.Here().Port) + "the stream", Encoding.ASCII.GetString(server.Take()));
    }

    [Theory]
    [InlineData(Surroundings.HostV4)]
    [InlineData(Surroundings.HostV6)]
    public void Version_2_is_binary(string host)
    {
        using Surroundings around = new();
        using Recorded server = new(around, 80);
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80", "--client-address", "proxy");
        using Socket client = around.Connect(host, 8080);
        client.Send("the stream"u8);
        client.Shutdown(SocketShutdown.Send);
        byte[] all = server.Take();
        IPEndPoint here = client.Here(), there = new(IPAddress.Parse(host), 8080);
        int size = here.Address.GetAddressBytes().Length;
        byte[] ports = new byte[4];
        BinaryPrimitives.WriteUInt16BigEndian(ports, (ushort)here.Port);
        BinaryPrimitives.WriteUInt16BigEndian(ports.AsSpan(2), (ushort)there.Port);
        byte[] expected =
        [
            0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, size == 4 ? (byte)0x11 : (byte)0x21, 0, (byte)((2 * size) + 4),
            .. here.Address.GetAddressBytes(), .. there.Address.GetAddressBytes(), .. ports, .. "the stream"u8,
        ];
        Assert.Equal(expected, all);
    }

    /// <summary>A server that speaks first waits for the header, and not for the client.</summary>
    [Fact]
    public void It_comes_though_the_client_says_nothing()
    {
        using Surroundings around = new();
        using TcpService server = new(around.Container, new IPEndPoint(IPAddress.Loopback, 80), async socket =>
        {
            byte[] header = new byte[28];
            for (int got = 0; got < header.Length;)
                got += await socket.ReceiveAsync(header.AsMemory(got));
            await socket.SendAsync("220 welcome"u8.ToArray());
        });
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80", "--client-address", "proxy");
        using Socket client = around.Connect(Surroundings.HostV4, 8080);
        Assert.Equal("220 welcome", client.ReadToEnd());
    }

    /// <summary>A target may take the header only from a peer that it trusts: that is always the same.</summary>
    [Theory]
    [InlineData(true, Surroundings.ContainerV4)]
    [InlineData(false, Surroundings.ClientV4)]
    public void The_connection_comes_from_the_container_or_where_that_has_no_address_from_the_client(bool bridged, string expected)
    {
        using Surroundings around = new(bridged: bridged);
        using Recorded server = new(around, 80);
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80", "--client-address", "proxy");
        using Socket client = around.Connect(Surroundings.HostV4, 8080);
        client.Shutdown(SocketShutdown.Send);
        Assert.Equal(28, server.Take().Length);
        Assert.Equal(expected, $"{server.Service.OnlyPeer().Address}");
    }

    [Fact]
    public void A_target_without_a_namespace_has_it_too()
    {
        using Surroundings around = new(bridged: false);
        using Recorded server = new(around, 80, onHost: true);
        using RunningForwarder pesto = around.Bed.ServeOnHost("-t", "8080:80", "--target", "127.0.0.1", "--client-address", "proxy-v1");
        using Socket client = around.Connect(Surroundings.HostV4, 8080);
        client.Shutdown(SocketShutdown.Send);
        Assert.Equal($"PROXY TCP4 10.96.0.2 10.96.0.1 {client.Here().Port} 8080\r\n", Encoding.ASCII.GetString(server.Take()));
    }

    [Fact]
    public void Large_streams_follow_it_whole()
    {
        using Surroundings around = new();
        using Recorded server = new(around, 80);
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80", "--client-address", "proxy");
        using Socket client = around.Connect(Surroundings.HostV4, 8080);
        byte[] all = new byte[4 << 20];
        Random.Shared.NextBytes(all);
        for (int sent = 0; sent < all.Length;)
            sent += client.Send(all.AsSpan(sent));
        client.Shutdown(SocketShutdown.Send);
        Assert.Equal(all, server.Take()[28..]);
    }

    /// <summary>A server that keeps what the one connection to it sends, to its end.</summary>
    sealed class Recorded : IDisposable
    {
        readonly TaskCompletionSource<byte[]> _all = new();

        public Recorded(Surroundings around, int port, bool onHost = false) => Service = new(
            onHost ? around.Host : around.Container,
            new IPEndPoint(onHost ? IPAddress.Any : IPAddress.IPv6Any, port),
            async socket =>
            {
                MemoryStream received = new();
                byte[] buffer = new byte[65536];
                int count;
                while ((count = await socket.ReceiveAsync(buffer)) > 0)
                    received.Write(buffer, 0, count);
                _all.TrySetResult(received.ToArray());
            });

        public TcpService Service { get; }

        public byte[] Take()
        {
            Eventually.True(() => _all.Task.IsCompleted, "the stream has ended");
            return _all.Task.GetAwaiter().GetResult();
        }

        public void Dispose() => Service.Dispose();
    }
}
