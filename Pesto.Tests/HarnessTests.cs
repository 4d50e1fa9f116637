using System.Net;
using System.Net.Sockets;
using Pesto.Tests.Harness;

namespace Pesto.Tests;

/// <summary>That what the other tests stand on holds.</summary>
public sealed class HarnessTests
{
    [Fact]
    public void A_command_gives_its_output_errors_and_exit_status()
    {
        Finished finished = new Command("sh", "-c", "read line; echo got $line; echo oh >&2; exit 3").WithInput("text\n").Run();
        Assert.Equal(new Finished(3, "got text\n", "oh\n"), finished);
    }

    [Fact]
    public void A_background_process_ends_with_what_it_started()
    {
        string child;
        using (BackgroundProcess process = new Command("sh", "-c", "sleep 1000 & echo $!; wait").Start())
        {
            Eventually.True(() => process.Output.EndsWith('\n'), "the child's id");
            child = process.Output.Trim();
            Assert.True(Directory.Exists($"/proc/{child}"));
        }

        Eventually.True(() => !File.Exists($"/proc/{child}/cmdline") || File.ReadAllText($"/proc/{child}/cmdline").Length == 0, "the child is gone");
    }

    [Fact]
    public void A_port_is_free_when_its_socket_is_closed_though_processes_are_started_meanwhile()
    {
        const int Times = 1000;
        using NetworkNamespace where = NetworkNamespace.Create();
        bool done = false;
        AtOnce.Run(
            () =>
            {
                try
                {
                    for (int i = 0; i < Times; i++)
                        TcpService.Echo(where, 80).Dispose();
                }
                finally
                {
                    Volatile.Write(ref done, true);
                }
            },
            () =>
            {
                while (!Volatile.Read(ref done))
                    new Command("sh", "-c", "").RunOrFail();
            });
    }

    [Fact]
    public void Two_namespaces_have_the_same_port_each_for_itself()
    {
        using NetworkNamespace one = NetworkNamespace.Create(), other = NetworkNamespace.Create();
        using TcpService here = TcpService.Says(one, 80, "one"), there = TcpService.Says(other, 80, "other");
        using Socket toOne = one.Connect(80), toOther = other.Connect(80);
        Assert.Equal("one", toOne.ReadToEnd());
        Assert.Equal("other", toOther.ReadToEnd());
    }

    [Fact]
    public void A_cable_joins_two_namespaces_in_both_families()
    {
        using NetworkNamespace one = NetworkNamespace.Create(), other = NetworkNamespace.Create();
        one.Link(other, ["10.1.0.1/24", "fd01::1/64"], ["10.1.0.2/24", "fd01::2/64"]);
        using TcpService echo = TcpService.Echo(other, new IPEndPoint(IPAddress.IPv6Any, 7));
        using Socket v4 = one.Connect(new IPEndPoint(IPAddress.Parse("10.1.0.2"), 7)), v6 = one.Connect(new IPEndPoint(IPAddress.Parse("fd01::2"), 7));
        Assert.Equal("four", v4.Exchange("four"));
        Assert.Equal("six", v6.Exchange("six"));
    }

    [Fact]
    public void An_echo_sends_datagrams_back()
    {
        using NetworkNamespace where = NetworkNamespace.Create();
        using UdpEcho echo = new(where, 53);
        using Socket client = where.ConnectUdp(53);
        Assert.Equal("question", client.Exchange("question"));
        Assert.Equal(1, echo.Received);
    }

    [Fact]
    public void A_connect_loop_counts_answers_and_refusals()
    {
        using NetworkNamespace where = NetworkNamespace.Create();
        using ConnectLoop loop = new(where, 7);
        Eventually.True(() => loop.Failures.EndsWith("ConnectionRefused"), "nobody listens yet");
        using TcpService echo = TcpService.Echo(where, 7);
        loop.WaitForMore(100);
    }

    [Fact]
    public void An_ordinary_user_has_a_container_of_his_own()
    {
        Account.NeedOrdinary();
        using Testbed bed = new(Account.Ordinary);
        string user = new Command("id", "-u").In(bed.Host).As(Account.Ordinary).RunOrFail();
        Assert.Equal($"{Account.Ordinary.Id}\n", user);
        Assert.NotEqual(0, new Command("ip", "link", "add", "type", "dummy").In(bed.Host).As(Account.Ordinary).Run().ExitStatus);
        using TcpService inside = TcpService.Says(bed.Container, 80, "inside");
        using Socket client = bed.Container.Connect(80);
        Assert.Equal("inside", client.ReadToEnd());
        Assert.False(bed.Host.Accepts(80));
    }
}
