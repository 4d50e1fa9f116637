using System.Net.Sockets;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Namespaces;

/// <summary>When the target namespace is gone, there is nothing left to forward to.</summary>
public sealed class EndOfNamespaceTests
{
    static readonly TimeSpan Limit = TimeSpan.FromSeconds(10);

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void It_ends_with_the_process_by_which_the_namespace_was_named(bool byPath)
    {
        Account.NeedOrdinary();
        using Testbed bed = new(Account.Ordinary);
        string[] target = byPath ? ["--netns", bed.Container.Path] : [$"{bed.Container.HolderId}"];
        using RunningForwarder pesto = bed.ServeInto(target, "-t", "8080:80");
        bed.Container.Dispose();
        Finished finished = pesto.Process.WaitForEnd(Limit);
        Assert.Equal(0, finished.ExitStatus);
        Assert.Contains($"{bed.Container.Path} is gone", finished.Errors);
        Assert.False(File.Exists(pesto.Control));
    }

    [Fact]
    public void It_ends_when_the_name_is_deleted()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        using NetworkNamespace other = NetworkNamespace.Create();
        other.Dispose();
        Assert.True(bed.Host.Accepts(8080));
        bed.Container.Dispose();
        Finished finished = pesto.Process.WaitForEnd(Limit);
        Assert.Equal(0, finished.ExitStatus);
        Assert.Contains($"{bed.Container.Path} is gone", finished.Errors);
    }

    [Fact]
    public void It_ends_when_the_name_stands_for_another_namespace()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        new Command("mount", "--bind", bed.Host.Path, bed.Container.Path).RunOrFail();
        Assert.Equal(0, pesto.Process.WaitForEnd(Limit).ExitStatus);
        new Command("umount", bed.Container.Path).RunOrFail();
    }

    [Fact]
    public void It_goes_on_if_told_to()
    {
        using Testbed bed = new();
        using TcpService inside = TcpService.Says(bed.Container, 80, "inside");
        using RunningForwarder pesto = bed.Serve("--no-netns-quit", "-t", "8080:80");
        bed.Container.Dispose();
        using (Socket client = bed.Host.Connect(8080))
            Assert.Equal("inside", client.ReadToEnd());
        Assert.Equal(0, pesto.Pesto("-A", "-t", "8081:81").ExitStatus);
        Assert.False(pesto.Process.HasEnded);
    }

    [Fact]
    public void A_process_that_is_not_there_is_named()
    {
        using Testbed bed = new();
        Finished finished = bed.Pesto("serve", "-f", "-t", "8080", "999999999").Run();
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains("network namespace /proc/999999999/ns/net: No such file or directory", finished.Errors);
    }
}
