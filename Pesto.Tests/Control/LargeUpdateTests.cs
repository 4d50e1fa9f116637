using System.Net;
using System.Net.Sockets;
using Pesto.Protocol;
using Pesto.Rules;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Control;

public sealed class LargeUpdateTests(ITestOutputHelper output)
{
    const int Ports = 10_000;

    /// <summary>How long an exchange takes depends on the machine and on what else it does; that the update leaves time for exchanges does not.</summary>
    [Fact]
    public void Traffic_goes_on_while_ten_thousand_ports_are_added_and_removed()
    {
        using Testbed bed = new();
        using Socket service = bed.Container.NewSocket(AddressFamily.InterNetwork, SocketType.Stream);
        service.Bind(new IPEndPoint(IPAddress.Loopback, 80));
        service.Listen();
        new Thread(() => Echo(service)) { IsBackground = true }.Start();
        using RunningForwarder pesto = bed.Serve("-q", "-t", "127.0.0.1/80");
        ServerTables few = ServerTables.Tcp("127.0.0.1/80"), many = ServerTables.Tcp("127.0.0.1/80", $"127.0.0.1/20000-{20000 + Ports - 1}");
        using ExchangeLoop exchanges = new(bed.Host.Connect(80));
        exchanges.WaitForMore(1000);
        TimeSpan before = exchanges.TakeLongest();
        foreach (ServerTables next in new[] { many, few, many, few })
        {
            int made = exchanges.Made;
            Dictionary<string, long> start = pesto.Statistics();
            ControlClient.Replace(pesto.Control, next);
            TimeSpan longest = exchanges.TakeLongest();
            int during = exchanges.Made - made;
            Dictionary<string, long> end = pesto.Statistics();
            long slices = end["slices"] - start["slices"];
            output.WriteLine($"{end["sockets"]} sockets: {slices} slices, the longest so far {end["longest_slice_us"]} us, iteration {end["longest_iteration_us"]} us; {during} exchanges, the longest {longest.TotalMilliseconds} ms (before: {before.TotalMilliseconds} ms)");
            Assert.Equal(next == many ? Ports + 1 : 1, end["sockets"]);
            // A slice handles a few hundred sockets at the very most.
            Assert.InRange(slices, Ports / 500, long.MaxValue);
            Assert.InRange(during, 10, int.MaxValue);
        }

        Assert.Null(exchanges.Failure);
    }

    /// <summary>Sockets for outbound flows are opened by the thread that opens the listening sockets, in between.</summary>
    [Fact]
    public void Updates_come_to_an_end_while_the_container_connects_to_the_host()
    {
        const int Some = 1000, Rounds = 10;
        using Testbed bed = new();
        using TcpService service = TcpService.Says(bed.Host, 81, "outside");
        using RunningForwarder pesto = bed.Serve("-q", "-t", "127.0.0.1/80", "-T", "8081:81");
        Rule[] outbound = ControlClient.Tables(pesto.Control).Of(Pif.Splice);
        ServerTables few = ServerTables.Tcp("127.0.0.1/80").With(Pif.Splice, outbound);
        ServerTables many = ServerTables.Tcp("127.0.0.1/80", $"127.0.0.1/20000-{20000 + Some - 1}").With(Pif.Splice, outbound);
        using ConnectLoop connections = new(bed.Container, 8081), others = new(bed.Container, 8081);
        connections.WaitForMore(10);
        for (int round = 0; round < Rounds; round++)
        {
            ControlClient.Replace(pesto.Control, many);
            ControlClient.Replace(pesto.Control, few);
        }

        connections.Stop();
        others.Stop();
        Assert.Equal(("", ""), (connections.Failures, others.Failures));
    }

    /// <summary>Answers one connection, on a thread of its own: its delays are not to be taken for the forwarder's.</summary>
    static void Echo(Socket service)
    {
        using Socket connection = service.Accept();
        connection.NoDelay = true;
        byte[] buffer = new byte[4096];
        int count;
        while ((count = connection.Receive(buffer)) > 0)
            connection.Send(buffer.AsSpan(0, count));
    }
}
