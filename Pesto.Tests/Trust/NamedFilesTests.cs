using Mono.Unix;
using Mono.Unix.Native;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Trust;

/// <summary>Files that options name may lie in folders that others write to: nothing that those put there leads to a file elsewhere.</summary>
public sealed class NamedFilesTests : IDisposable
{
    const string Before = "as it was\n";

    readonly Testbed _bed = new();
    readonly TempFolder _elsewhere = new();

    public NamedFilesTests() => File.WriteAllText(Other, Before);

    string Other => _elsewhere["other"];

    string Path => _bed.Folder["file"];

    public void Dispose()
    {
        _bed.Dispose();
        _elsewhere.Dispose();
    }

    Finished Fails(string option) => _bed.Pesto("serve", "-f", option, Path, "--netns", _bed.Container.Path, "-t", "8080:80").Run();

    RunningForwarder Serves(string option) => _bed.Serve("-t", "8080:80", option, Path);

    [Theory]
    [InlineData("-P", "pid file", true)]
    [InlineData("-l", "log file", true)]
    [InlineData("-P", "pid file", false)]
    [InlineData("-l", "log file", false)]
    public void A_symbolic_link_is_not_followed(string option, string what, bool leadsSomewhere)
    {
        File.CreateSymbolicLink(Path, leadsSomewhere ? Other : _elsewhere["not yet"]);
        Finished finished = Fails(option);
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains($"{what} {Path} (a symbolic link, which is not followed)", finished.Errors);
        Assert.Equal(Before, File.ReadAllText(Other));
        Assert.Equal([Other], Directory.GetFiles(_elsewhere.Path));
        Assert.True(UnixFileSystemInfo.GetFileSystemEntry(Path).IsSymbolicLink);
    }

    [Fact]
    public void A_pid_file_is_a_new_one_and_not_another_name_of_an_old_one()
    {
        new UnixFileInfo(Other).CreateLink(Path);
        using RunningForwarder pesto = Serves("-P");
        Eventually.True(() => File.ReadAllText(Path) == $"{pesto.Process.Id}\n", "it is written");
        Assert.Equal(Before, File.ReadAllText(Other));
    }

    [Fact]
    public void What_is_no_regular_file_gets_the_number_and_stays()
    {
        Assert.Equal(0, Syscall.mkfifo(Path, FilePermissions.S_IRUSR | FilePermissions.S_IWUSR));
        using FileStream reader = new(Path, FileMode.Open, FileAccess.ReadWrite);
        using RunningForwarder pesto = Serves("-P");
        byte[] read = new byte[32];
        Assert.Equal($"{pesto.Process.Id}\n", System.Text.Encoding.ASCII.GetString(read, 0, reader.Read(read)));
        pesto.Process.Signal(Signum.SIGTERM);
        Assert.Equal(0, pesto.Process.WaitForEnd(TimeSpan.FromSeconds(10)).ExitStatus);
        Assert.True(UnixFileSystemInfo.GetFileSystemEntry(Path).IsFifo);
    }

    [Fact]
    public void A_fifo_that_nobody_reads_is_not_waited_for()
    {
        Assert.Equal(0, Syscall.mkfifo(Path, FilePermissions.S_IRUSR | FilePermissions.S_IWUSR));
        Finished finished = Fails("-P");
        Assert.Equal(1, finished.ExitStatus);
        Assert.Contains($"pid file {Path}: No such device or address", finished.Errors);
    }
}
