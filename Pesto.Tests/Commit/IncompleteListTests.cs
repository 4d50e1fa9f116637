using Pesto.Linux;
using Pesto.Tests.Faults;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Commit;

/// <summary>What a list of the target's sockets does not tell, since the kernel lacked memory for it, closes nothing.</summary>
public sealed class IncompleteListTests
{
    [Theory]
    [InlineData("recv", Errno.ENOBUFS)]
    [InlineData("recv", Errno.ENOMEM)]
    [InlineData("send", Errno.ENOBUFS)]
    public void Auto_ports_stay_open_while_lists_fail_whatever_is_committed(string call, Errno error)
    {
        using Testbed bed = new();
        using TcpService service = TcpService.Echo(bed.Container, 80);
        using UdpEcho datagrams = new(bed.Container, 53);
        using Preload preload = new();
        using RunningForwarder pesto = bed.ServeBehind(preload.Before, "-t", "1-1000,auto", "-u", "1-1000,auto");
        Assert.True(bed.Host.Accepts(80));
        using ConnectLoop clients = new(bed.Host, 80);
        clients.WaitForMore(10);
        preload.Fail($"netlink_{call}", 0, int.MaxValue, error, 0);
        Assert.Equal(0, pesto.Pesto("-A", "-t", "8080:80").ExitStatus);
        Assert.Equal(0, pesto.Pesto("-D", "-t", "8080:80").ExitStatus);
        long scans = pesto.Statistic("scans");
        Eventually.True(() => pesto.Statistic("scans") > scans + 3, "more lists fail");
        Assert.Equal(2, pesto.Statistic("sockets"));
        Assert.NotEqual(0, preload.Stop());
        clients.WaitForMore(10);
        Assert.Equal("", clients.Failures);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    public void After_a_list_that_broke_off_the_next_is_whole_again(int after)
    {
        using Testbed bed = new();
        using Preload preload = new();
        using RunningForwarder pesto = bed.ServeBehind(preload.Before, "-t", "auto");
        preload.Fail("netlink_recv", after, 1, Errno.ENOBUFS, 0);
        Eventually.True(() => preload.Failed == 1, "a list breaks off");
        using (TcpService service = TcpService.Echo(bed.Container, 80))
            Eventually.True(() => bed.Host.Accepts(80), "the service is found");
        Eventually.True(() => !bed.Host.Accepts(80), "its end is noticed");
    }

    [Fact]
    public void A_service_that_is_gone_when_a_commit_keeps_its_port_is_noticed_afterwards()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "80");
        Assert.Equal(0, pesto.Pesto("-t", "auto").ExitStatus);
        Eventually.True(() => !bed.Host.Accepts(80), "it is closed");
    }
}
