using Mono.Unix.Native;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Namespaces;

/// <summary>The options of `pesto serve` that say where to, as whom, and what not.</summary>
public sealed class ServeOptionsTests
{
    [Theory]
    [InlineData("unexpected argument 2", "1", "2")]
    [InlineData("web: not the id of a process", "web")]
    [InlineData("--netns and the id of a process exclude each other", "--netns", "web", "1")]
    [InlineData("a network namespace and --target exclude each other", "--target", "127.0.0.2", "1")]
    [InlineData("--userns and --netns-only exclude each other", "--userns", "/x", "--netns-only", "1")]
    [InlineData("--userns needs a network namespace", "--userns", "/x")]
    [InlineData("--runas no-such-user: not a user", "--runas", "no-such-user")]
    [InlineData("--runas 1:2:3: not a user", "--runas", "1:2:3")]
    [InlineData("there is no namespace to forward from", "-T", "80")]
    [InlineData("not available here", "-t", "auto")]
    [InlineData("/proc/self/ns/net is the one that this is started in", "--netns", "/proc/self/ns/net", "-t", "8080")]
    [InlineData("user namespace /nowhere/user: No such file or directory", "--userns", "/nowhere/user", "1")]
    public void What_can_not_be_meant_is_said(string words, params string[] options)
    {
        Finished finished = new Command(Programs.Pesto, ["serve", "-f", .. options]).Run();
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains(words, finished.Errors);
    }

    [Fact]
    public void Root_becomes_another_user()
    {
        Account.NeedOrdinary();
        using Testbed bed = new(Account.Ordinary);
        string control = bed.Folder["control"], user = $"{Account.Ordinary.Id}";
        Command serve = new Command(Programs.Pesto, "serve", "-f", "-c", control, "--runas", user, "-t", "8080:80", $"{bed.Container.HolderId}").In(bed.Host);
        using RunningForwarder pesto = new(bed, control, serve.Start());
        Assert.Equal(0, Syscall.stat(control, out Stat status));
        Assert.Equal(Account.Ordinary.Id, status.st_uid);
        Assert.Contains($"\nUid:\t{user}\t{user}\t{user}\t{user}\n", File.ReadAllText($"/proc/{pesto.Process.Id}/status"));
        Assert.Contains($"\nGid:\t{user}\t{user}\t{user}\t{user}\nFDSize", File.ReadAllText($"/proc/{pesto.Process.Id}/status"));
    }

    [Fact]
    public void An_ordinary_user_does_not()
    {
        Account.NeedOrdinary();
        Finished finished = new Command(Programs.Pesto, "serve", "-f", "--runas", "0", "-t", "8080").As(Account.Ordinary).Run();
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains("becoming user 0, group 0: Operation not permitted", finished.Errors);
    }

    [Fact]
    public void A_protocol_that_is_off_is_not_offered()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("--no-tcp");
        Finished finished = pesto.Pesto("-t", "8080");
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains("this protocol is not available here", finished.Errors);
    }
}
