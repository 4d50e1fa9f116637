using System.Net;
using System.Net.Sockets;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Accepting;

/// <summary>Far more connections are held on one port than there are descriptors for.</summary>
[Collection(Alone.Name)]
public sealed class HeldConnectionsTests
{
    const int Held = 1000;

    [Theory]
    [InlineData(256)]
    [InlineData(400)]
    [InlineData(401)]
    public void Control_answers_other_ports_are_served_and_the_port_can_be_closed(int descriptors)
    {
        using Testbed bed = new();
        string control = bed.Folder["control"];
        Command limited = new Command(
            "prlimit", $"--nofile={descriptors}", Programs.Pesto, "serve", "-f", "-c", control, "--netns", bed.Container.Path, "-t", "8080:80", "-t", "9090:80").In(bed.Host);
        using RunningForwarder pesto = new(bed, control, limited.Start());
        using TcpService service = TcpService.Echo(bed.Container, 80);
        using Socket before = bed.Host.Connect(9090);
        Assert.Equal("before", before.Exchange("before"));
        Socket[] held = bed.Host.Run(() => Enumerable.Range(0, Held).Select(_ => Connected(8080)).ToArray());
        Eventually.True(() => pesto.Process.Errors.Contains("limit reached"), "it says so");

        // A table can be looked at and changed, and another port gets new connections, though the one could use every descriptor.
        Assert.Equal(0, pesto.Pesto().ExitStatus);
        Assert.Equal(0, pesto.Pesto("-A", "-t", "9100-9103").ExitStatus);
        for (int i = 0; i < 3; i++)
        {
            using Socket other = bed.Host.Connect(9090);
            Assert.Equal("meanwhile", other.Exchange("meanwhile"));
        }

        Finished deleted = pesto.Pesto("-D", "-t", "8080:80");
        Assert.Equal((0, ""), (deleted.ExitStatus, deleted.Errors));
        Assert.DoesNotContain("8080", pesto.Pesto().Output);
        Assert.False(bed.Host.Accepts(8080));

        // Each either goes on or is reset and counted, which is said once; whoever is served goes on.
        Assert.Equal("after", before.Exchange("after"));
        int served = 0, reset = 0;
        foreach (Socket client in held)
        {
            try
            {
                Assert.Equal("served", client.Exchange("served"));
                served++;
            }
            catch (SocketException e) when (e.SocketErrorCode is SocketError.ConnectionReset or SocketError.Shutdown)
            {
                reset++;
            }
        }

        Dictionary<string, long> counters = pesto.Statistics();
        Assert.Equal((served + 1, reset), (counters["tcp_open"], counters["shed"]));
        Assert.InRange(served, 32, descriptors / 2);
        Assert.Equal(Held, served + reset);
        Assert.Single(pesto.Process.Errors.Split('\n'), line => line.Contains("they are reset"));
        Assert.Single(pesto.Process.Errors.Split('\n'), line => line.Contains("limit reached"));
        foreach (Socket client in held)
            client.Dispose();
        Eventually.Equal(1, () => pesto.Statistic("tcp_open"));
    }

    static Socket Connected(int port)
    {
        Socket socket = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true, ReceiveTimeout = 20_000 };
        socket.Connect(new IPEndPoint(IPAddress.Loopback, port));
        return socket;
    }
}
