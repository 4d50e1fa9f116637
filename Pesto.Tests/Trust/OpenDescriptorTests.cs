using System.Globalization;
using System.Text.RegularExpressions;
using Mono.Unix;
using Mono.Unix.Native;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Trust;

/// <summary>What a forwarder behind its sandbox has open, however it was started: what its work needs, each descriptor of it accounted for.</summary>
public sealed class OpenDescriptorTests
{
    static readonly string[] Standard = ["pipe", "pipe", "pipe"];

    /// <summary>
    /// The runtime's, and the loop's own with signals, the first table's socket, the control socket, the list of handshakes, the list of the target's
    /// own addresses and news of them, and news of the interfaces on which is listened.
    /// </summary>
    static readonly string[] Always = ["/dev/urandom", "eventpoll", "signalfd", "socket", "socket", "socket", "socket", "socket", "socket"];

    /// <summary>The lock on the container's network namespace, and the socket whose end is the end of its table of nf_tables.</summary>
    static readonly string[] ClientAddress = ["net", "socket"];

    /// <summary>The counters by which two threads wake each other; the other side's list of handshakes and news of interfaces; the lists of sockets ("auto") of both.</summary>
    static readonly string[] TwoSides = ["eventfd", "eventfd", "socket", "socket", "socket", "socket", .. ClientAddress];

    /// <summary>To the child that removes root's files when the forwarder, who is "nobody", has ended, and what was set up in the container.</summary>
    static readonly string[] Janitor = ["pipe", "pipe"];

    const string ProcessWatch = "pidfd", MountWatch = "mountinfo";

    [Fact]
    public void By_root_for_a_name()
    {
        Account.NeedOrdinary();
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        AssertOpen(pesto.Process.Id, Standard, Always, TwoSides, Janitor, [MountWatch]);
    }

    [Fact]
    public void By_root_for_a_process()
    {
        Account.NeedOrdinary();
        using Testbed bed = new();
        using BackgroundProcess inside = new Command("sleep", "600").In(bed.Container).Start();
        inside.WaitUntil(() => File.ReadAllText($"/proc/{inside.Id}/comm") == "sleep\n", "it is in the container");
        using RunningForwarder pesto = bed.ServeInto([$"{inside.Id}"], "-t", "8080:80");
        AssertOpen(pesto.Process.Id, Standard, Always, TwoSides, Janitor, [ProcessWatch]);
    }

    [Theory]
    [InlineData("PID")]
    [InlineData("--netns", "/proc/PID/ns/net")]
    [InlineData("--netns", "/proc/PID/ns/net", "--userns", "/proc/PID/ns/user")]
    public void By_an_ordinary_user_for_a_process(params string[] target)
    {
        Account.NeedOrdinary();
        using Testbed bed = new(Account.Ordinary);
        using RunningForwarder pesto = bed.ServeInto([.. target.Select(word => word.Replace("PID", $"{bed.Container.HolderId}"))], "-t", "8080:80");
        AssertOpen(pesto.Process.Id, Standard, Always, TwoSides, Janitor, [ProcessWatch]);
    }

    [Fact]
    public void By_an_ordinary_user_for_namespaces_that_are_open()
    {
        Account.NeedOrdinary();
        using Testbed bed = new(Account.Ordinary);
        string container = $"/proc/{bed.Container.HolderId}/ns";
        string[] open = ["sh", "-c", $"exec 7<{container}/net 8<{container}/user; exec \"$@\"", "sh"];
        using RunningForwarder pesto = bed.ServeWith(open, "--netns", "/proc/self/fd/7", "--userns", "/proc/self/fd/8", "-t", "8080:80");
        AssertOpen(pesto.Process.Id, Standard, Always, TwoSides, Janitor);
        Assert.True(bed.Host.Accepts(8080));
    }

    [Fact]
    public void By_root_for_an_address()
    {
        Account.NeedOrdinary();
        using Testbed bed = new();
        using RunningForwarder pesto = bed.ServeOnHost("-t", "8080:80", "--target", "127.0.0.1");
        AssertOpen(pesto.Process.Id, Standard, Always, Janitor);
    }

    [Fact]
    public void By_an_ordinary_user_for_an_address()
    {
        Account.NeedOrdinary();
        using Testbed bed = new();
        bed.Folder.GiveTo(Account.Ordinary);
        string control = bed.Folder["control"];
        Command serve = new Command(Programs.Pesto, "serve", "-f", "-c", control, "-t", "8080:80", "--target", "127.0.0.1").In(bed.Host).As(Account.Ordinary);
        using RunningForwarder pesto = new(bed, control, serve.Start());
        AssertOpen(pesto.Process.Id, Standard, Always);
    }

    [Fact]
    public void In_the_background_with_a_log()
    {
        Account.NeedOrdinary();
        using Testbed bed = new();
        string log = bed.Folder["log"], pid = bed.Folder["pid"];
        new Command(Programs.Pesto, "serve", "-c", bed.Folder["control"], "-P", pid, "-l", log, "--netns", bed.Container.Name!, "-t", "8080:80").In(bed.Host).RunOrFail();
        int process = int.Parse(File.ReadAllText(pid), CultureInfo.InvariantCulture);
        try
        {
            AssertOpen(process, ["/dev/null", "/dev/null", "/dev/null"], Always, TwoSides, Janitor, [MountWatch, log]);
        }
        finally
        {
            Syscall.kill(process, Signum.SIGKILL);
        }
    }

    [Fact]
    public void Inherited_descriptors_that_options_name_are_used_and_not_kept()
    {
        Account.NeedOrdinary();
        using Testbed bed = new();
        string log = bed.Folder["log"], pid = bed.Folder["pid"];
        string[] open = ["sh", "-c", $"exec 5</etc/hosts 6>{log} 7</ 8<{bed.Container.Path} 9>{pid}; exec \"$@\"", "sh"];
        using RunningForwarder pesto = bed.ServeWith(open, "--netns", "/proc/self/fd/8", "-l", "/dev/fd/6", "-P", "/dev/fd/9", "-t", "8080:80");
        AssertOpen(pesto.Process.Id, Standard, Always, TwoSides, Janitor, [log]);
        Assert.Contains("serving", File.ReadAllText(log));
        Assert.Equal($"{pesto.Process.Id}\n", File.ReadAllText(pid));
    }

    static void AssertOpen(int process, params string[][] expected)
    {
        Eventually.True(() => AllThreads(process).All(status => status.Contains("Seccomp:\t2")), "the sandbox is entered");
        Eventually.Equal(string.Join(' ', expected.SelectMany(part => part).Order(StringComparer.Ordinal)), () => string.Join(' ', Open(process)));
    }

    static IEnumerable<string> AllThreads(int process) => Directory.GetDirectories($"/proc/{process}/task").Select(thread => File.ReadAllText($"{thread}/status"));

    /// <summary>What each descriptor is open to: the kind, for what has no name.</summary>
    static IEnumerable<string> Open(int process) => Directory.GetFileSystemEntries($"/proc/{process}/fd")
        .Select(fd => UnixPath.TryReadLink(fd) ?? "")
        .Select(link => Regex.Replace(link, @"^anon_inode:\[?(\w+)\]?$|^(\w+):\[\d+\]$|^/proc/\d+/(mountinfo)$", "$1$2$3"))
        .Order(StringComparer.Ordinal);
}
