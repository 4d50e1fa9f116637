using System.Globalization;
using Mono.Unix;
using Mono.Unix.Native;
using Pesto.Linux;
using Pesto.Tests.Faults;
using Pesto.Tests.Harness;
using Account = Pesto.Tests.Harness.Account;
using Errno = Pesto.Linux.Errno;

namespace Pesto.Tests.Trust;

/// <summary>What a forwarder at work is left with, in each of its threads.</summary>
public sealed class LeastPrivilegeTests
{
    const uint Nobody = 65534;
    const Capability Both = Capability.NetBindService | Capability.NetRaw;

    [Fact]
    public void Started_by_root_it_is_nobody_with_two_capabilities()
    {
        Account.NeedOrdinary();
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        AssertSandbox(pesto.Process, Nobody, Both, Both);
    }

    [Fact]
    public void On_one_side_only_it_is_nobody_with_two_capabilities()
    {
        Account.NeedOrdinary();
        using Testbed bed = new();
        using RunningForwarder pesto = bed.ServeOnHost("-t", "8080:80", "--target", "127.0.0.1");
        AssertSandbox(pesto.Process, Nobody, Both);
    }

    [Theory]
    [InlineData("8080:80", Capability.None, Capability.None, "loopback")]
    [InlineData("auto", Capability.NetBindService, Capability.NetBindService, "loopback")]
    [InlineData("8080:80", Both, Capability.None, "auto")]
    [InlineData("auto", Both, Capability.NetBindService, "auto")]
    public void Without_a_control_socket_it_keeps_what_a_scan_and_clients_addresses_need_or_nothing(string ports, Capability kept, Capability onTheHost, string mode)
    {
        Account.NeedOrdinary();
        using Testbed bed = new();
        using BackgroundProcess pesto = bed.Pesto("serve", "-f", "--netns", bed.Container.Name!, "-t", ports, "--client-address", mode).Start();
        AssertSandbox(pesto, Nobody, kept, onTheHost);
    }

    [Fact]
    public void An_ordinary_user_has_what_counts_in_his_container_only()
    {
        Account.NeedOrdinary();
        using Testbed bed = new(Account.Ordinary);
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        AssertSandbox(pesto.Process, Account.Ordinary.Id, Both, Capability.None);
    }

    [Fact]
    public void An_ordinary_user_without_a_container_has_nothing()
    {
        Account.NeedOrdinary();
        using Testbed bed = new();
        bed.Folder.GiveTo(Account.Ordinary);
        Command serve = new Command(Programs.Pesto, "serve", "-f", "-c", bed.Folder["control"], "-t", "8080:80", "--target", "127.0.0.1").In(bed.Host).As(Account.Ordinary);
        using BackgroundProcess pesto = serve.Start();
        AssertSandbox(pesto, Account.Ordinary.Id, Capability.None);
    }

    [Fact]
    public void It_is_who_it_is_told_to_be()
    {
        Account.NeedOrdinary();
        using Testbed bed = new();
        bed.Folder.GiveTo(Account.Ordinary);
        using RunningForwarder pesto = bed.ServeOnHost("-t", "80:8080", "--target", "127.0.0.1", "--runas", $"{Account.Ordinary.Id}");
        AssertSandbox(pesto.Process, Account.Ordinary.Id, Both);
        Assert.Equal(Account.Ordinary.Id, new UnixFileInfo(pesto.Control).OwnerUserId);
        pesto.Process.Signal(Signum.SIGTERM);
        Assert.Equal(0, pesto.Process.WaitForEnd(TimeSpan.FromSeconds(10)).ExitStatus);
        Assert.False(File.Exists(pesto.Control));
    }

    [Theory]
    [InlineData("0")]
    [InlineData("root:0")]
    [InlineData("root")]
    public void Root_may_be_told_to_stay_root_and_has_two_capabilities_all_the_same(string name)
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80", "--runas", name);
        AssertSandbox(pesto.Process, 0, Both, Both);
    }

    [Fact]
    public void Whom_the_system_does_not_know_it_can_not_be()
    {
        using Testbed bed = new();
        Finished finished = bed.Pesto("serve", "-f", "-t", "8080:80", "--runas", "no such user").Run();
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains("--runas no such user: not a user", finished.Errors);
    }

    [Fact]
    public void It_keeps_everything_if_told_to()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80", "--no-sandbox");
        foreach (Dictionary<string, string> status in Threads(pesto.Process))
        {
            Assert.Equal("0", status["Seccomp"]);
            Assert.Equal("0", status["NoNewPrivs"]);
            Assert.StartsWith("0\t", status["Uid"]);
            Assert.NotEqual("0000000000000000", status["CapEff"]);
        }
    }

    [Fact]
    public void In_the_background_it_is_the_same()
    {
        using Testbed bed = new();
        string pid = bed.Folder["pid"];
        new Command(Programs.Pesto, "serve", "-c", bed.Folder["control"], "-P", pid, "--netns", bed.Container.Name!, "-t", "8080:80").In(bed.Host).RunOrFail();
        int process = int.Parse(File.ReadAllText(pid), CultureInfo.InvariantCulture);
        try
        {
            Assert.All(Threads(process), status => Assert.Equal("2", status["Seccomp"]));
            // The first line for the system's logger, and whatever that needs.
            Syscall.kill(process, Signum.SIGUSR1);
            Assert.Equal(0, bed.Pesto("-A", "-t", "8081:81", bed.Folder["control"]).Run().ExitStatus);
            Assert.True(bed.Host.Accepts(8081));
        }
        finally
        {
            Syscall.kill(process, Signum.SIGKILL);
        }
    }

    [Fact]
    public void Roots_control_socket_is_for_root_though_nobody_serves_it()
    {
        Account.NeedOrdinary();
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        AssertSandbox(pesto.Process, Nobody, Both, Both);
        UnixFileInfo socket = new(pesto.Control);
        Assert.Equal(0, socket.OwnerUserId);
        Assert.Equal(FileAccessPermissions.UserReadWriteExecute & ~FileAccessPermissions.UserExecute, socket.FileAccessPermissions);
        Command nobody = new("setpriv", $"--reuid={Nobody}", $"--regid={Nobody}", "--clear-groups", Programs.Pesto, pesto.Control);
        Assert.Contains("Permission denied", nobody.In(bed.Host).Run().Errors);
        Assert.Equal(0, pesto.Pesto("-A", "-t", "8081:81").ExitStatus);
    }

    [Fact]
    public void Later_tables_may_have_low_ports_both_ways_and_take_over_those_of_the_first()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "80:80", "-t", "127.0.0.1/8080:80");
        using TcpService inside = TcpService.Echo(bed.Container, 80);
        using ConnectLoop clients = new(bed.Host, 80);
        clients.WaitForMore(50);
        Assert.Equal(0, pesto.Pesto("-t", "127.0.0.1/80:80", "-t", "8080:80", "-t", "81:80", "-T", "82:82").ExitStatus);
        clients.WaitForMore(50);
        Assert.True(bed.Host.Accepts(81));
        Assert.True(bed.Host.Accepts(8080));
        Assert.True(bed.Container.Accepts(82));
        clients.Stop();
        Assert.Equal("", clients.Failures);
    }

    [Fact]
    public void Sockets_can_be_taken_off_an_interface()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "%lo/8080:80");
        using TcpService inside = TcpService.Echo(bed.Container, 80);
        using ConnectLoop clients = new(bed.Host, 8080);
        clients.WaitForMore(50);
        Assert.Equal(0, pesto.Pesto("-t", "8080:80").ExitStatus);
        clients.WaitForMore(50);
        Assert.Equal(0, pesto.Pesto("-t", "%lo/8080:80").ExitStatus);
        clients.WaitForMore(50);
        clients.Stop();
        Assert.Equal("", clients.Failures);
    }

    /// <summary>What an intruder would like to call, by numbers of x86-64: all of these end the process.</summary>
    [Theory]
    [InlineData("execve", 59)]
    [InlineData("fork", 57)]
    [InlineData("clone", 56)]
    [InlineData("ptrace", 101)]
    [InlineData("setns", 308)]
    [InlineData("unshare", 272)]
    [InlineData("mount", 165)]
    [InlineData("bpf", 321)]
    [InlineData("io_uring_setup", 425)]
    [InlineData("setuid", 105)]
    [InlineData("a packet socket", 41, 17, 3, 0)]
    [InlineData("a raw socket", 41, 2, 3, 1)]
    [InlineData("a UNIX socket", 41, 1, 1, 0)]
    [InlineData("an MPTCP socket", 41, 2, 1, 262)]
    [InlineData("an SCTP socket", 41, 10, 1, 132)]
    [InlineData("a UDP-Lite socket", 41, 2, 2, 136)]
    [InlineData("a socket for pings", 41, 2, 2, 1)]
    [InlineData("memory to execute", 9, 0, 4096, 7)]
    [InlineData("a call of the other table of numbers", 0x40000000 + 39)]
    public void A_forbidden_call_is_the_end(string what, int number, long first = -1, long second = 0, long third = 0)
    {
        NeedX64();
        using Testbed bed = new();
        using Preload preload = new();
        using RunningForwarder pesto = bed.ServeBehind(preload.Before, "-t", "8080:80");
        WaitForSandbox(pesto.Process);
        Assert.True(preload.Call(pesto.Process, number, "/bin/true", first, second, third) is null, $"{what} did not end it");
        // 128 and SIGSYS.
        Assert.Equal(159, pesto.Process.WaitForEnd(TimeSpan.FromSeconds(5)).ExitStatus);
    }

    [Fact]
    public void Files_and_unknown_calls_are_refused_and_it_goes_on()
    {
        NeedX64();
        using Testbed bed = new();
        using Preload preload = new();
        using RunningForwarder pesto = bed.ServeBehind(preload.Before, "-t", "8080:80");
        WaitForSandbox(pesto.Process);
        Assert.Equal(-(long)Errno.EACCES, preload.Call(pesto.Process, 257, "/etc/passwd", -100, -1, 0));
        Assert.Equal(-(long)Errno.EACCES, preload.Call(pesto.Process, 2, "/etc/passwd", -1, 0, 0));
        // kill(1, 0), memfd_create, and one that no kernel has.
        Assert.Equal(-(long)Errno.ENOSYS, preload.Call(pesto.Process, 62, "", 1, 0));
        Assert.Equal(-(long)Errno.ENOSYS, preload.Call(pesto.Process, 319, "name", -1, 0));
        Assert.Equal(-(long)Errno.ENOSYS, preload.Call(pesto.Process, 4000));
        Assert.True(bed.Host.Accepts(8080));
    }

    /// <summary>With F_SETOWN, F_SETSIG and O_ASYNC, a pipe sends any signal to any process of the user when something comes to it.</summary>
    [Theory]
    [InlineData("F_SETOWN", 8)]
    [InlineData("F_SETSIG", 10)]
    [InlineData("F_SETOWN_EX", 15)]
    [InlineData("F_SETFL with O_ASYNC", 4, 0x2000)]
    [InlineData("F_SETLEASE", 1024)]
    [InlineData("F_NOTIFY", 1026)]
    [InlineData("F_DUPFD", 0)]
    public void Of_fcntl_it_has_the_size_of_pipes_alone(string what, int command, long argument = 1)
    {
        NeedX64();
        using Testbed bed = new();
        using Preload preload = new();
        using RunningForwarder pesto = bed.ServeBehind(preload.Before, "-t", "8080:80");
        WaitForSandbox(pesto.Process);
        const int Fcntl = 72, GetPipeSize = 1032, SetPipeSize = 1031;
        Assert.True(preload.Call(pesto.Process, Fcntl, "", 2, command, argument) == -(long)Errno.EPERM, what);
        Assert.InRange(preload.Call(pesto.Process, Fcntl, "", 2, GetPipeSize, 0)!.Value, 4096, long.MaxValue);
        Assert.InRange(preload.Call(pesto.Process, Fcntl, "", 2, SetPipeSize, 8192)!.Value, 8192, long.MaxValue);
    }

    [Fact]
    public void Of_files_it_can_remove_its_own()
    {
        NeedX64();
        Assert.SkipWhen(Landlock.Prepare([], out _) is { Ok: false }, "this kernel has no Landlock");
        using Testbed bed = new();
        using Preload preload = new();
        using TempFolder other = new();
        File.WriteAllText(other["file"], "");
        using RunningForwarder pesto = bed.ServeBehind(preload.Before, "-t", "8080:80");
        WaitForSandbox(pesto.Process);
        Assert.Equal(-(long)Errno.EACCES, preload.Call(pesto.Process, 87, other["file"], -1));
        pesto.Process.Signal(Signum.SIGTERM);
        Assert.Equal(0, pesto.Process.WaitForEnd(TimeSpan.FromSeconds(5)).ExitStatus);
        Assert.False(File.Exists(pesto.Control));
        Assert.True(File.Exists(other["file"]));
    }

    [Fact]
    public void What_nobody_may_not_remove_is_gone_all_the_same_however_it_ends()
    {
        Account.NeedOrdinary();
        using Testbed bed = new();
        Syscall.chmod(bed.Folder.Path, NativeConvert.FromOctalPermissionString("755"));
        foreach (Signum signal in (Signum[])[Signum.SIGTERM, Signum.SIGKILL])
        {
            using RunningForwarder first = bed.Serve("-t", "8080:80");
            WaitForSandbox(first.Process);
            first.Process.Signal(signal);
            _ = first.Process.WaitForEnd(TimeSpan.FromSeconds(20));
            Eventually.True(() => !File.Exists(first.Control), "the control socket is gone");
        }

        using RunningForwarder second = bed.Serve("-t", "8081:80");
        Assert.Contains("8081", second.Pesto().Output);
    }

    [Fact]
    public void Who_removes_it_has_roots_rights_to_files_and_to_networks_and_no_other()
    {
        Account.NeedOrdinary();
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        WaitForSandbox(pesto.Process);
        int janitor = int.Parse(File.ReadAllText($"/proc/{pesto.Process.Id}/task/{pesto.Process.Id}/children"));
        Eventually.True(() => Threads(janitor)[0]["Seccomp"] == "2", "it has its own sandbox");
        Dictionary<string, string> status = Assert.Single(Threads(janitor));
        string kept = $"{(ulong)(Capability.DacOverride | Capability.Fowner | Capability.NetAdmin):x16}";
        Assert.Equal(("1", kept, kept, "0000000000000000"), (status["NoNewPrivs"], status["CapPrm"], status["CapEff"], status["CapInh"]));
        // Two pipes, the namespace's lock, two netlink sockets, three settings.
        Assert.Equal(8, Directory.GetFileSystemEntries($"/proc/{janitor}/fd").Length);
    }

    static void NeedX64() => Assert.SkipWhen(System.Runtime.InteropServices.RuntimeInformation.ProcessArchitecture != System.Runtime.InteropServices.Architecture.X64, "numbers of x86-64");

    static void WaitForSandbox(BackgroundProcess process) =>
        process.WaitUntil(() => Threads(process) is { Count: > 1 } all && all.All(status => status["Seccomp"] == "2"), "the sandbox is entered");

    /// <param name="process">A forwarder.</param>
    /// <param name="user">Whom all its threads are.</param>
    /// <param name="kept">What is left to the loop's thread, then to the other side's; all others have nothing.</param>
    static void AssertSandbox(BackgroundProcess process, uint user, params Capability[] kept)
    {
        WaitForSandbox(process);
        List<Dictionary<string, string>> threads = Threads(process);
        foreach (Dictionary<string, string> status in threads)
        {
            Assert.Equal("1", status["NoNewPrivs"]);
            Assert.Equal("0077", status["Umask"]);
            Assert.All(status["Uid"].Split('\t'), id => Assert.Equal($"{user}", id));
            Assert.All(status["Gid"].Split('\t'), id => Assert.Equal($"{user}", id));
            Assert.Equal("0000000000000000", status["CapInh"]);
            Assert.Equal("0000000000000000", status["CapAmb"]);
            Assert.Equal(status["CapPrm"], status["CapEff"]);
        }

        List<string> expected = [.. kept.Select(privilege => $"{(ulong)privilege:x16}")];
        expected.AddRange(Enumerable.Repeat("0000000000000000", threads.Count - expected.Count));
        Assert.Equal(expected[0], threads[0]["CapEff"]);
        Assert.Equal(expected.Order(), threads.Select(status => status["CapEff"]).Order());
        // What may not be dumped belongs to root in /proc; for what is in an ordinary user's namespace, that is him.
        bool inContainer = user == Account.Ordinary.Id && kept.Length > 1;
        Assert.Equal(inContainer ? user : 0, new UnixFileInfo($"/proc/{process.Id}/environ").OwnerUserId);
    }

    static List<Dictionary<string, string>> Threads(BackgroundProcess process) => Threads(process.Id);

    static List<Dictionary<string, string>> Threads(int process) =>
        [.. Directory.GetDirectories($"/proc/{process}/task").OrderBy(thread => Path.GetFileName(thread) != $"{process}").Select(Status).OfType<Dictionary<string, string>>()];

    /// <summary>What a thread's status file says; null if the thread has ended, which it may while the file is read.</summary>
    static Dictionary<string, string>? Status(string thread)
    {
        try
        {
            return File.ReadAllLines($"{thread}/status").Select(line => line.Split(':', 2)).ToDictionary(parts => parts[0], parts => parts[1].Trim());
        }
        catch (IOException) when (!Directory.Exists(thread))
        {
            return null;
        }
    }
}
