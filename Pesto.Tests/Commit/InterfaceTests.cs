using System.Net;
using System.Net.Sockets;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Commit;

/// <summary>An interface that is deleted and made anew, as a VPN's when it starts again, is another one for the kernel.</summary>
public sealed class InterfaceTests
{
    static readonly IPEndPoint Web = new(IPAddress.Parse("10.1.0.2"), 8080);

    [Fact]
    public void Ports_of_an_interface_that_is_made_anew_are_listened_on_again()
    {
        using Testbed bed = new();
        using TcpService echo = TcpService.Echo(bed.Container, 80);
        using UdpEcho datagrams = new(bed.Container, 53);
        using Uplink uplink = new(bed.Host);
        using RunningForwarder pesto = bed.Serve("-t", "%uplink/8080:80", "-t", "10.1.0.2%uplink/8081:80", "-u", "%uplink/5353:53");
        uplink.IsServed();
        for (int i = 0; i < 3; i++)
        {
            uplink.MakeAnew();
            uplink.IsServed();
        }
    }

    [Fact]
    public async Task The_same_table_sent_again_listens_on_the_new_interface()
    {
        using Testbed bed = new();
        using TcpService echo = TcpService.Echo(bed.Container, 80);
        using Uplink uplink = new(bed.Host);
        using RunningForwarder pesto = bed.Serve("-t", "%uplink/8080:80");
        Assert.True(uplink.Outside.Accepts(Web));
        // Stopped meanwhile, it has the update before it can have looked at interfaces.
        pesto.Process.Signal(Mono.Unix.Native.Signum.SIGSTOP);
        uplink.MakeAnew();
        Task<Finished> update = Task.Run(() => pesto.Pesto("-t", "%uplink/8080:80"));
        pesto.Process.Signal(Mono.Unix.Native.Signum.SIGCONT);
        Assert.Equal(0, (await update).ExitStatus);
        Assert.True(uplink.Outside.Accepts(Web));
        Assert.Equal(1, pesto.Statistic("sockets"));
    }

    [Fact]
    public void A_table_for_an_interface_that_is_gone_is_an_error_and_not_kept()
    {
        using Testbed bed = new();
        using Uplink uplink = new(bed.Host);
        using RunningForwarder pesto = bed.Serve("-t", "%uplink/8080:80");
        uplink.Delete();
        Finished update = pesto.Pesto("-t", "%uplink/8080:80");
        Assert.NotEqual(0, update.ExitStatus);
        Assert.Contains("No such device", update.Errors);
    }

    [Fact]
    public void Where_other_interfaces_come_and_go_nothing_is_opened_or_closed()
    {
        using Testbed bed = new();
        using Uplink uplink = new(bed.Host), other = new(bed.Host, "other", "10.2.0");
        using TcpService echo = TcpService.Echo(bed.Container, 80);
        using RunningForwarder pesto = bed.Serve("-t", "%uplink/8080:80");
        using ExchangeLoop exchanges = new(uplink.Outside.Connect(Web));
        long opened = pesto.Statistic("sockets_opened");
        for (int i = 0; i < 5; i++)
        {
            other.MakeAnew();
            exchanges.WaitForMore(10);
        }

        Assert.Equal((opened, 0), (pesto.Statistic("sockets_opened"), pesto.Statistic("sockets_closed")));
        Assert.Null(exchanges.Failure);
    }

    /// <summary>An interface of the host's, with another network behind it.</summary>
    sealed class Uplink : IDisposable
    {
        readonly NetworkNamespace _host;
        readonly string _name, _net;

        public Uplink(NetworkNamespace host, string name = "uplink", string net = "10.1.0")
        {
            (_host, _name, _net) = (host, name, net);
            Make();
        }

        public NetworkNamespace Outside { get; } = NetworkNamespace.Create();

        void Make()
        {
            Ip("link", "add", _name, "type", "veth", "peer", "name", "outside", "netns", Outside.Name!);
            Ip("link", "set", _name, "up");
            Ip("address", "add", $"{_net}.2/24", "dev", _name);
            new Command("ip", "-n", Outside.Name!, "address", "add", $"{_net}.1/24", "dev", "outside").RunOrFail();
            new Command("ip", "-n", Outside.Name!, "link", "set", "outside", "up").RunOrFail();
        }

        public void Delete() => Ip("link", "delete", _name);

        public void MakeAnew()
        {
            Delete();
            Make();
        }

        void Ip(params string[] arguments) => new Command("ip", ["-n", _host.Name!, .. arguments]).RunOrFail();

        public void IsServed()
        {
            foreach (int port in new[] { 8080, 8081 })
            {
                Eventually.True(() => Outside.Accepts(new IPEndPoint(Web.Address, port)), $"port {port} is listened on");
                using Socket client = Outside.Connect(new IPEndPoint(Web.Address, port));
                Assert.Equal("ping", client.Exchange("ping"));
            }

            using Socket asker = Outside.ConnectUdp(new IPEndPoint(Web.Address, 5353));
            asker.ReceiveTimeout = 200;
            Eventually.True(() => Answers(asker), "UDP is answered");
        }

        static bool Answers(Socket asker)
        {
            try
            {
                return asker.Exchange("question") == "question";
            }
            catch (SocketException)
            {
                return false;
            }
        }

        public void Dispose() => Outside.Dispose();
    }
}
