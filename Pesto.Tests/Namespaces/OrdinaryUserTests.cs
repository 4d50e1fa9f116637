using System.Net;
using System.Net.Sockets;
using Mono.Unix.Native;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Namespaces;

/// <summary>A user without any privilege forwards into a namespace of his own.</summary>
public sealed class OrdinaryUserTests : IDisposable
{
    readonly Testbed _bed;

    public OrdinaryUserTests()
    {
        Account.NeedOrdinary();
        _bed = new Testbed(Account.Ordinary);
    }

    public void Dispose() => _bed.Dispose();

    string Pid => $"{_bed.Container.HolderId}";

    [Theory]
    [InlineData("PID")]
    [InlineData("--netns", "/proc/PID/ns/net")]
    [InlineData("--netns", "/proc/PID/ns/net", "--userns", "/proc/PID/ns/user")]
    public void He_names_it_by_a_process_or_a_path(params string[] target)
    {
        using RunningForwarder pesto = _bed.ServeInto([.. target.Select(word => word.Replace("PID", Pid))], "-t", "8080:80", "-T", "5432");
        using TcpService inside = TcpService.Says(_bed.Container, 80, "inside"), outside = TcpService.Says(_bed.Host, 5432, "outside");
        using Socket inward = _bed.Host.Connect(8080), outward = _bed.Container.Connect(5432);
        Assert.Equal("inside", inward.ReadToEnd());
        Assert.Equal("outside", outward.ReadToEnd());
    }

    [Fact]
    public void It_goes_both_ways_in_either_family()
    {
        using RunningForwarder pesto = _bed.Serve("-t", "8080:80", "-T", "5432");
        using TcpService inside = TcpService.Echo(_bed.Container, new IPEndPoint(IPAddress.IPv6Any, 80));
        using TcpService outside = TcpService.Echo(_bed.Host, new IPEndPoint(IPAddress.IPv6Any, 5432));
        foreach (IPAddress loopback in new[] { IPAddress.Loopback, IPAddress.IPv6Loopback })
        {
            using Socket inward = _bed.Host.Connect(new IPEndPoint(loopback, 8080)), outward = _bed.Container.Connect(new IPEndPoint(loopback, 5432));
            Assert.Equal("ping", inward.Exchange("ping"));
            Assert.Equal("pong", outward.Exchange("pong"));
        }
    }

    [Fact]
    public void Outbound_ports_listen_on_nothing_but_loopback()
    {
        using RunningForwarder pesto = _bed.Serve("-T", "5432");
        string sockets = new Command("ss", "-Hltn").In(_bed.Container).As(Account.Ordinary).RunOrFail();
        Assert.Contains("*%lo:5432", sockets);
        Assert.Single(sockets.TrimEnd('\n').Split('\n'));
    }

    [Fact]
    public void Many_flows_outbound_use_sockets_of_the_host()
    {
        using RunningForwarder pesto = _bed.Serve("-T", "5432");
        using TcpService outside = TcpService.Echo(_bed.Host, 5432);
        Socket[] clients = [.. Enumerable.Range(0, 200).Select(_ => _bed.Container.Connect(5432))];
        foreach (Socket client in clients)
            Assert.Equal("ping", client.Exchange("ping"));
        foreach (Socket client in clients)
            client.Dispose();
        Assert.Equal(200, outside.Accepted);
    }

    [Fact]
    public void His_files_are_his()
    {
        string pidFile = _bed.Folder["pid"], log = _bed.Folder["log"];
        using RunningForwarder pesto = _bed.ServeInto([Pid], "-P", pidFile, "-l", log, "-t", "8080:80");
        Eventually.True(() => File.Exists(pidFile) && File.ReadAllText(pidFile).EndsWith('\n'), "the pid file is written");
        Assert.Equal(pesto.Process.Id, int.Parse(File.ReadAllText(pidFile)));
        foreach (string path in new[] { pesto.Control, pidFile, log })
        {
            Assert.Equal(0, Syscall.stat(path, out Stat status));
            Assert.Equal(Account.Ordinary.Id, status.st_uid);
        }

        pesto.Process.Signal(Signum.SIGTERM);
        Assert.Equal(0, pesto.Process.WaitForEnd(TimeSpan.FromSeconds(10)).ExitStatus);
        Assert.False(File.Exists(pesto.Control));
        Assert.False(File.Exists(pidFile));
        Assert.Contains("ending: signal 15", File.ReadAllText(log));
    }

    [Fact]
    public void He_and_root_may_change_the_tables_and_nobody_else()
    {
        using RunningForwarder pesto = _bed.ServeInto([Pid]);
        Assert.Equal(0, pesto.Pesto("-t", "8080:80").ExitStatus);
        Command add = new Command(Programs.Pesto, "-A", "-t", "8081:81", pesto.Control).In(_bed.Host);
        Assert.Equal(0, add.Run().ExitStatus);
        Finished refused = add.As(new Account(Account.Ordinary.Id + 1)).Run();
        Assert.Equal(1, refused.ExitStatus);
        Assert.Contains("Permission denied", refused.Errors);
    }

    [Fact]
    public void It_goes_to_the_background()
    {
        string pidFile = _bed.Folder["pid"], log = _bed.Folder["log"];
        Command serve = _bed.Pesto("serve", "-P", pidFile, "-l", log, "-t", "8080:80", Pid);
        Assert.Equal(new Finished(0, "", ""), serve.Run());
        int pid = int.Parse(File.ReadAllText(pidFile));
        using TcpService inside = TcpService.Says(_bed.Container, 80, "inside");
        using Socket client = _bed.Host.Connect(8080);
        Assert.Equal("inside", client.ReadToEnd());
        Syscall.kill(pid, Signum.SIGTERM);
        Eventually.True(() => !File.Exists(pidFile), "it ended");
    }

    [Fact]
    public void Netns_only_leaves_out_the_user_namespace_and_so_gets_nowhere()
    {
        Finished finished = _bed.Pesto("serve", "-f", "--netns-only", "-t", "8080:80", Pid).Run();
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains($"entering network namespace /proc/{Pid}/ns/net: Operation not permitted", finished.Errors);
    }

    [Fact]
    public void A_namespace_of_roots_is_not_for_him()
    {
        Finished finished = _bed.Pesto("serve", "-f", "-t", "8080:80", "--netns", _bed.Host.Path).Run();
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains($"entering network namespace {_bed.Host.Path}, which only root can do", finished.Errors);
    }

    [Fact]
    public void Without_nsenter_he_is_told_what_to_install()
    {
        Command pesto = new("env", "PATH=/nowhere", Programs.Pesto, "serve", "-f", "-t", "8080:80", Pid);
        Finished finished = pesto.In(_bed.Host).As(Account.Ordinary).Run();
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains("nsenter, of the package util-linux", finished.Errors);
    }

    [Fact]
    public void A_user_namespace_within_his_own_is_his_too() => ServesWhatIsMadeBy("unshare", "-Urn", "unshare", "-Un");

    [Fact]
    [Needs("bwrap")]
    public void A_bubblewrap_sandbox_is_such_a_namespace()
    {
        ServesWhatIsMadeBy("bwrap", "--dev-bind", "/", "/", "--dev", "/dev", "--unshare-user", "--unshare-net");
    }

    void ServesWhatIsMadeBy(params string[] maker)
    {
        Command holder = new(maker[0], [.. maker[1..], "sh", "-c", "echo $$; exec cat"]);
        using BackgroundProcess running = holder.In(_bed.Host).As(Account.Ordinary).Start();
        running.WaitUntil(() => running.Output.EndsWith('\n'), "it holds a namespace");
        using RunningForwarder pesto = _bed.ServeInto([running.Output.TrimEnd('\n')], "-t", "8080:80");
        Assert.True(_bed.Host.Accepts(8080));
    }
}
