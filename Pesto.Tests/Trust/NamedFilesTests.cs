using Mono.Unix;
using Mono.Unix.Native;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Trust;

/// <summary>Files that options name may lie in folders that others write to: nothing that those put there leads to a file elsewhere.</summary>
public sealed class NamedFilesTests : IDisposable
{
    const string Before = "as it was\n";

    readonly Testbed bed = new();
    readonly TempFolder elsewhere = new();

    public NamedFilesTests() => File.WriteAllText(this.Other, Before);

    string Other => this.elsewhere["other"];

    string Path => this.bed.Folder["file"];

    public void Dispose()
    {
        this.bed.Dispose();
        this.elsewhere.Dispose();
    }

    Finished Fails(string option) => this.bed.Pesto("serve", "-f", option, this.Path, "--netns", this.bed.Container.Path, "-t", "8080:80").Run();

    RunningForwarder Serves(string option) => this.bed.Serve("-t", "8080:80", option, this.Path);

    [Theory]
    [InlineData("-P", "pid file", true)]
    [InlineData("-l", "log file", true)]
    [InlineData("-P", "pid file", false)]
    [InlineData("-l", "log file", false)]
    public void A_symbolic_link_is_not_followed(string option, string what, bool leadsSomewhere)
    {
        File.CreateSymbolicLink(this.Path, leadsSomewhere ? this.Other : this.elsewhere["not yet"]);
        Finished finished = this.Fails(option);
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains($"{what} {this.Path} (a symbolic link, which is not followed)", finished.Errors);
        Assert.Equal(Before, File.ReadAllText(this.Other));
        Assert.Equal([this.Other], Directory.GetFiles(this.elsewhere.Path));
        Assert.True(UnixFileSystemInfo.GetFileSystemEntry(this.Path).IsSymbolicLink);
    }

    [Fact]
    public void A_pid_file_is_a_new_one_and_not_another_name_of_an_old_one()
    {
        new UnixFileInfo(this.Other).CreateLink(this.Path);
        using RunningForwarder pesto = this.Serves("-P");
        Eventually.True(() => File.ReadAllText(this.Path) == $"{pesto.Process.Id}\n", "it is written");
        Assert.Equal(Before, File.ReadAllText(this.Other));
    }

    [Fact]
    public void What_is_no_regular_file_gets_the_number_and_stays()
    {
        Assert.Equal(0, Syscall.mkfifo(this.Path, FilePermissions.S_IRUSR | FilePermissions.S_IWUSR));
        using FileStream reader = new(this.Path, FileMode.Open, FileAccess.ReadWrite);
        using RunningForwarder pesto = this.Serves("-P");
        byte[] read = new byte[32];
        Assert.Equal($"{pesto.Process.Id}\n", System.Text.Encoding.ASCII.GetString(read, 0, reader.Read(read)));
        pesto.Process.Signal(Signum.SIGTERM);
        Assert.Equal(0, pesto.Process.WaitForEnd(TimeSpan.FromSeconds(10)).ExitStatus);
        Assert.True(UnixFileSystemInfo.GetFileSystemEntry(this.Path).IsFifo);
    }

    [Fact]
    public void A_fifo_that_nobody_reads_is_not_waited_for()
    {
        Assert.Equal(0, Syscall.mkfifo(this.Path, FilePermissions.S_IRUSR | FilePermissions.S_IWUSR));
        Finished finished = this.Fails("-P");
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains($"pid file {this.Path}: No such device or address", finished.Errors);
    }
}
