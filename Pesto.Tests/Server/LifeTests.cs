using System.Net;
using System.Net.Sockets;
using Mono.Unix.Native;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Server;

/// <summary>How `pesto serve` starts, what it leaves on the machine, and how it ends.</summary>
public sealed class LifeTests
{
    [Fact]
    public void In_the_background_it_returns_when_everything_listens()
    {
        using Testbed bed = new();
        using TcpService service = TcpService.Says(bed.Container, 80, "inside");
        string control = bed.Folder["control"], pidFile = bed.Folder["pid"], log = bed.Folder["log"];
        Finished started = bed.Pesto("serve", "-c", control, "-P", pidFile, "-l", log, "--netns", bed.Container.Path, "-t", "8080-8179:80-179").Run();
        Assert.Equal(new Finished(0, "", ""), started);
        int pid = int.Parse(File.ReadAllText(pidFile));
        try
        {
            Assert.EndsWith("\n", File.ReadAllText(pidFile));
            using Socket client = bed.Host.Connect(8080);
            Assert.Equal("inside", client.ReadToEnd());
            Assert.True(bed.Host.Accepts(8179));
            Assert.Single(ControlClient.Listed(control));
            Assert.Contains("serving: 100 listening sockets", File.ReadAllText(log));
            Assert.Equal(FilePermissions.S_IRUSR | FilePermissions.S_IWUSR, Mode(log));
            // It belongs to no terminal and no session of the shell that started it.
            Assert.Equal(pid, Syscall.getsid(pid));
            for (int standard = 0; standard <= 2; standard++)
                Assert.Equal("/dev/null", File.ResolveLinkTarget($"/proc/{pid}/fd/{standard}", false)!.FullName);
        }
        finally
        {
            Syscall.kill(pid, Signum.SIGTERM);
        }

        Eventually.True(() => !File.Exists(pidFile) && !File.Exists(control), "its files are removed");
        Eventually.True(() => File.ReadAllText(log).Contains("ending: signal 15"), "the log says how it ended");
        Eventually.True(() => !Directory.Exists($"/proc/{pid}") || File.ReadAllText($"/proc/{pid}/stat").Contains(") Z "), "it ends");
        // Its first thread may be a zombie a little before the last one lets go of the sockets.
        Eventually.True(() => !bed.Host.Accepts(8080), "nothing listens any more");
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_taken_port_ends_the_start_with_a_line_for_each(bool background)
    {
        using Testbed bed = new();
        using TcpService one = TcpService.Echo(bed.Host, 8081), other = TcpService.Echo(bed.Host, new IPEndPoint(IPAddress.IPv6Loopback, 8083));
        string control = bed.Folder["control"], pidFile = bed.Folder["pid"];
        string[] mode = background ? [] : ["-f"];
        Finished finished = bed.Pesto(["serve", .. mode, "-c", control, "-P", pidFile, "--netns", bed.Container.Path, "-t", "127.0.0.1/8080-8082", "-t", "::1/8083", "-t", "9000"]).Run();
        Assert.Equal(1, finished.ExitStatus);
        Assert.Equal("", finished.Output);
        Assert.Contains("TCP 127.0.0.1:8081: Address already in use", finished.Errors);
        Assert.Contains("TCP [::1]:8083: Address already in use", finished.Errors);
        Assert.DoesNotContain("8080", finished.Errors);
        Assert.DoesNotContain("9000", finished.Errors);
        Assert.False(File.Exists(control));
        Assert.False(File.Exists(pidFile));
        Assert.False(bed.Host.Accepts(9000));
    }

    [Fact]
    public void A_taken_port_is_no_failure_where_every_port_was_asked_for()
    {
        using Testbed bed = new();
        using TcpService taken = TcpService.Says(bed.Host, 8081, "somebody else"), service = TcpService.Says(bed.Container, 8082, "inside");
        using RunningForwarder pesto = bed.Serve("-t", "~1-8000,~9000-65535");
        using Socket client = bed.Host.Connect(8082), other = bed.Host.Connect(8081);
        Assert.Equal("inside", client.ReadToEnd());
        Assert.Equal("somebody else", other.ReadToEnd());
    }

    [Theory]
    [InlineData(Signum.SIGTERM)]
    [InlineData(Signum.SIGINT)]
    public void A_signal_ends_it_with_status_0_and_nothing_is_left(Signum signal)
    {
        using Testbed bed = new();
        using TcpService service = TcpService.Echo(bed.Container, 80);
        using RunningForwarder pesto = bed.Serve("-t", "8080:80", "-P", bed.Folder["pid"]);
        Eventually.Equal($"{pesto.Process.Id}\n", () => File.ReadAllText(bed.Folder["pid"]));
        using Socket client = bed.Host.Connect(8080);
        Assert.Equal("open", client.Exchange("open"));
        pesto.Process.Signal(signal);
        Assert.Equal(0, pesto.Process.WaitForEnd(TimeSpan.FromSeconds(20)).ExitStatus);
        Assert.False(File.Exists(pesto.Control));
        Assert.False(File.Exists(bed.Folder["pid"]));
    }

    [Fact]
    public void It_outlives_a_hang_up()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080");
        pesto.Process.Signal(Signum.SIGHUP);
        Assert.Equal(1, pesto.Statistic("sockets"));
    }

    [Fact]
    public void The_control_socket_of_a_dead_process_is_replaced()
    {
        using Testbed bed = new();
        // As "nobody" it would have a child that removes it even then.
        using (RunningForwarder killed = bed.Serve("--runas", "0"))
        {
            killed.Process.Signal(Signum.SIGKILL);
            killed.Process.WaitForEnd(TimeSpan.FromSeconds(20));
            Assert.True(File.Exists(killed.Control));
        }

        using RunningForwarder pesto = bed.Serve("-t", "8080");
        Assert.Single(ControlClient.Listed(pesto.Control));
    }

    [Fact]
    public void The_control_socket_of_a_living_process_is_not_taken()
    {
        using Testbed bed = new();
        using RunningForwarder living = bed.Serve("-t", "8080");
        Finished second = bed.Pesto("serve", "-f", "-c", living.Control, "--netns", bed.Container.Path, "-t", "8081").Run();
        Assert.Equal(1, second.ExitStatus);
        Assert.Contains($"control socket {living.Control}: Address already in use", second.Errors);
        Assert.Single(ControlClient.Listed(living.Control));
    }

    [Fact]
    public void A_file_that_is_no_socket_is_left_alone()
    {
        using Testbed bed = new();
        string path = bed.Folder["precious"];
        File.WriteAllText(path, "data");
        File.CreateSymbolicLink(bed.Folder["link"], path);
        foreach (string name in new[] { "precious", "link" })
        {
            Finished finished = bed.Pesto("serve", "-f", "-c", bed.Folder[name], "--netns", bed.Container.Path).Run();
            Assert.Equal(1, finished.ExitStatus);
            Assert.Contains("Address already in use", finished.Errors);
        }

        Assert.Equal("data", File.ReadAllText(path));
    }

    [Fact]
    public void A_control_socket_that_another_process_has_put_there_is_not_removed_at_the_end()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve();
        File.Delete(pesto.Control);
        using Socket other = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        other.Bind(new UnixDomainSocketEndPoint(pesto.Control));
        pesto.Process.Signal(Signum.SIGTERM);
        Assert.Equal(0, pesto.Process.WaitForEnd(TimeSpan.FromSeconds(20)).ExitStatus);
        Assert.True(File.Exists(pesto.Control));
    }

    [Fact]
    public void A_pid_file_that_can_not_be_written_ends_the_start_and_is_not_removed()
    {
        using Testbed bed = new();
        Directory.CreateDirectory(bed.Folder["folder"]);
        Finished finished = bed.Pesto("serve", "-P", bed.Folder["folder"], "-c", bed.Folder["control"], "--netns", bed.Container.Path, "-t", "8080").Run();
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains($"pid file {bed.Folder["folder"]}: Is a directory", finished.Errors);
        Assert.True(Directory.Exists(bed.Folder["folder"]));
        Assert.False(File.Exists(bed.Folder["control"]));
    }

    [Theory]
    [InlineData("-f")]
    [InlineData("-q")]
    public void It_starts_without_standard_input_output_and_errors(string mode)
    {
        using Testbed bed = new();
        using TcpService service = TcpService.Says(bed.Container, 80, "inside");
        string control = bed.Folder["control"], pidFile = bed.Folder["pid"];
        // With descriptors 0 to 2 closed, what is opened next has these numbers, and what is meant for people must not get there.
        Command command = new Command("sh", "-c", "exec \"$@\" 0<&- 1>&- 2>&-", "sh", Programs.Pesto, "serve", mode, "-d", "-c", control, "-P", pidFile, "--netns", bed.Container.Path, "-t", "8080:80").In(bed.Host);
        using BackgroundProcess process = command.Start();
        Eventually.True(() => File.Exists(pidFile) && File.ReadAllText(pidFile).EndsWith('\n'), "it runs");
        try
        {
            using Socket client = bed.Host.Connect(8080);
            Assert.Equal("inside", client.ReadToEnd());
            ControlClient.Replace(control, ControlClient.Tcp("127.0.0.1", 8080, 81), ControlClient.Tcp("127.0.0.1", 8081, 80));
            Assert.Equal(2, ControlClient.Listed(control).Length);
            if (mode != "-f")
                Assert.Equal(0, process.WaitForEnd(TimeSpan.FromSeconds(20)).ExitStatus);
        }
        finally
        {
            Syscall.kill(int.Parse(File.ReadAllText(pidFile)), Signum.SIGTERM);
        }

        Eventually.True(() => !File.Exists(pidFile), "it ends");
    }

    [Theory]
    [InlineData("there is no option --nonsense", "--nonsense")]
    [InlineData("there is no option -x", "-x")]
    [InlineData("--target needs a value", "--target")]
    [InlineData("-t needs a value", "-t")]
    [InlineData("-4 and -6 exclude each other", "-4", "-6")]
    [InlineData("--target exclude each other", "--netns", "x", "--target", "127.0.0.1")]
    [InlineData("here: not the id of a process", "here", "-f")]
    [InlineData("--target 0.0.0.0: not an IPv4 or IPv6 address of one host", "--target", "0.0.0.0")]
    [InlineData("--target ::: not an IPv4 or IPv6 address of one host", "--target", "::")]
    [InlineData("--target 224.0.0.1: not", "--target", "224.0.0.1")]
    [InlineData("--target example: not", "--target", "example")]
    [InlineData("--conf-timeout soon: not a number of seconds", "--conf-timeout", "soon")]
    [InlineData("--conf-timeout -1: not a number of seconds", "--conf-timeout", "-1")]
    [InlineData("--stats 1e3: not a number of seconds", "--stats", "1e3")]
    [InlineData("-t 0:", "-t", "0")]
    [InlineData("-t 70000:", "-t", "70000")]
    [InlineData("-t 90-80:", "-t", "90-80")]
    [InlineData("-t 8080:", "-t", "8080:1", "-t", "8080")]
    [InlineData("-t 127.0.0.1/81:::1/80:", "-t", "127.0.0.1/81:::1/80")]
    [InlineData("-T 80:", "-T", "80")]
    [InlineData("control socket ", "-c", "")]
    [InlineData("control socket /nonexistent/s: No such file or directory", "-c", "/nonexistent/s")]
    [InlineData("log file /nonexistent/l: No such file or directory", "-l", "/nonexistent/l")]
    [InlineData("network namespace /run/netns/pesto-none: No such file or directory", "--netns", "pesto-none")]
    [InlineData("network namespace /nonexistent/ns: No such file or directory", "--netns", "/nonexistent/ns")]
    [InlineData("/dev/null", "--netns", "/dev/null")]
    public void A_wrong_command_line_says_what_is_wrong_and_ends_with_status_1(string message, params string[] arguments)
    {
        using NetworkNamespace where = NetworkNamespace.Create();
        foreach (string[] mode in new string[][] { [], ["-f"] })
        {
            Finished finished = new Command(Programs.Pesto, ["serve", .. mode, .. arguments]).In(where).Run();
            Assert.Contains(message, finished.Errors);
            Assert.StartsWith("pesto serve: ", finished.Errors);
            Assert.Equal((1, ""), (finished.ExitStatus, finished.Output));
        }
    }

    [Theory]
    [InlineData("Usage: pesto serve", "--help")]
    [InlineData("Usage: pesto serve", "-h", "-t", "80")]
    [InlineData("pesto 0.", "--version")]
    public void Help_and_version_go_to_standard_output_with_status_0(string beginning, params string[] arguments)
    {
        Finished finished = new Command(Programs.Pesto, ["serve", .. arguments]).Run();
        Assert.StartsWith(beginning, finished.Output);
        Assert.Equal((0, ""), (finished.ExitStatus, finished.Errors));
    }

    [Fact]
    public void Counters_are_printed_at_an_interval_when_asked_for()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-q", "--stats", "0.05");
        Eventually.True(() => pesto.Process.Errors.Split("stats: ").Length > 3, "three lines of counters");
    }

    [Fact]
    public void Messages_that_nobody_reads_hold_up_nothing()
    {
        const int MoreThanAPipeHolds = 1000;
        using Testbed bed = new();
        using TcpService service = TcpService.Echo(bed.Container, 80);
        string control = bed.Folder["control"], errors = bed.Folder["errors"];
        Assert.Equal(0, Syscall.mkfifo(errors, FilePermissions.S_IRUSR | FilePermissions.S_IWUSR));
        using FileStream unread = new(errors, FileMode.Open, FileAccess.ReadWrite);
        Command serve = new("sh", "-c", "exec \"$0\" serve -f -c \"$1\" --netns \"$2\" -t 8080:80 2>\"$3\"", Programs.Pesto, control, bed.Container.Path, errors);
        using RunningForwarder pesto = new(bed, control, serve.In(bed.Host).Start());
        MakeItComplain(control, MoreThanAPipeHolds);

        using Socket connected = bed.Host.Connect(8080);
        Assert.Equal("ping", connected.Exchange("ping"));
        pesto.Process.Signal(Signum.SIGTERM);
        Eventually.True(() => pesto.Process.HasEnded, "it ends");
    }

    [Fact]
    [Needs("socat")]
    public void A_terminal_that_takes_nothing_more_holds_up_nothing()
    {
        const int MoreThanATerminalHolds = 1000;
        using Testbed bed = new();
        using TcpService service = TcpService.Echo(bed.Container, 80);
        string control = bed.Folder["control"], terminal = bed.Folder["terminal"];
        using BackgroundProcess reader = new Command("socat", $"PTY,link={terminal},rawer", "OPEN:/dev/null").Start();
        Eventually.True(() => File.Exists(terminal), "there is a terminal");
        reader.Signal(Signum.SIGSTOP);
        Command serve = new("sh", "-c", "exec \"$0\" serve -f -c \"$1\" --netns \"$2\" -t 8080:80 2>\"$3\"", Programs.Pesto, control, bed.Container.Path, terminal);
        using RunningForwarder pesto = new(bed, control, serve.In(bed.Host).Start());
        MakeItComplain(control, MoreThanATerminalHolds);

        using Socket connected = bed.Host.Connect(8080);
        Assert.Equal("ping", connected.Exchange("ping"));
        pesto.Process.Signal(Signum.SIGTERM);
        Eventually.True(() => pesto.Process.HasEnded, "it ends");
    }

    [Fact]
    public void A_pid_file_that_another_has_written_since_is_not_removed()
    {
        using Testbed bed = new();
        string pidFile = bed.Folder["pid"], control = bed.Folder["second"];
        using RunningForwarder first = bed.Serve("-P", pidFile, "-t", "8080:80");
        using RunningForwarder second = new(bed, control, bed.Pesto("serve", "-f", "-c", control, "-P", pidFile, "--netns", bed.Container.Path, "-t", "8081:80").Start());
        Eventually.True(() => File.Exists(pidFile) && File.ReadAllText(pidFile) == $"{second.Process.Id}\n", "the second has written it");
        first.Process.Signal(Signum.SIGTERM);
        Assert.Equal(0, first.Process.WaitForEnd(TimeSpan.FromSeconds(10)).ExitStatus);
        Assert.Equal($"{second.Process.Id}\n", File.ReadAllText(pidFile));
        second.Process.Signal(Signum.SIGTERM);
        Assert.Equal(0, second.Process.WaitForEnd(TimeSpan.FromSeconds(10)).ExitStatus);
        Assert.False(File.Exists(pidFile));
    }

    [Fact]
    public void In_the_background_it_tells_the_systems_logger_and_does_not_wait_for_it()
    {
        const int MoreThanItTakes = 1000;
        using Testbed bed = new();
        using TcpService service = TcpService.Echo(bed.Container, 80);
        string control = bed.Folder["control"], pidFile = bed.Folder["pid"], log = bed.Folder["log"];
        using Socket logger = new(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified) { ReceiveTimeout = 20_000 };
        logger.Bind(new UnixDomainSocketEndPoint(log));
        // A /dev of its own, in which "log" is the test's.
        const string OwnDevices = "mount -t tmpfs none /mnt && for f in null zero urandom; do touch /mnt/$f && mount --bind /dev/$f /mnt/$f || exit 1; done && ln -s \"$1\" /mnt/log && mount --move /mnt /dev && shift && exec \"$@\"";
        new Command("unshare", "--mount", "sh", "-c", OwnDevices, "sh", log, Programs.Pesto, "serve", "-c", control, "-P", pidFile, "--netns", bed.Container.Path, "-t", "8080:80")
            .In(bed.Host).RunOrFail();
        int pid = int.Parse(File.ReadAllText(pidFile));
        try
        {
            MakeItComplain(control, MoreThanItTakes);

            using Socket connected = bed.Host.Connect(8080);
            Assert.Equal("ping", connected.Exchange("ping"));
            byte[] line = new byte[4096];
            Assert.StartsWith("<30>pesto: control: ", System.Text.Encoding.UTF8.GetString(line, 0, logger.Receive(line)));
        }
        finally
        {
            Syscall.kill(pid, Signum.SIGTERM);
        }

        Eventually.True(() => !File.Exists(pidFile), "it ends");
    }

    /// <summary>Has it write so many messages: one for each client that makes no sense.</summary>
    static void MakeItComplain(string control, int times)
    {
        for (int i = 0; i < times; i++)
        {
            using ControlClient client = new(control);
            client.ReadListing();
            client.Send("basil:c\0of another kind"u8);
            client.WaitForClose();
        }
    }

    static FilePermissions Mode(string path)
    {
        Assert.Equal(0, Syscall.stat(path, out Stat stat));
        return stat.st_mode & FilePermissions.ACCESSPERMS;
    }
}
