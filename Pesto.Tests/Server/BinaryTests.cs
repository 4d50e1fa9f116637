using Pesto.Tests.Harness;

namespace Pesto.Tests.Server;

/// <summary>The program is one small file that needs the C library, or nothing at all.</summary>
public sealed class BinaryTests
{
    [Fact]
    public void The_program_is_three_megabytes_at_most() => Assert.InRange(new FileInfo(Programs.Pesto).Length, 1, 3_000_000);

    [Fact]
    public void The_program_needs_the_c_library_alone() => Assert.All(
        Needed(Programs.Pesto),
        // The mathematics and the loader are parts of it.
        library => Assert.Matches(@"^(libc\.so\.|libm\.so\.|ld-linux)", library));

    /// <summary>A folder in there would be searched first, and who may write to it could have the program load a library of his.</summary>
    [Fact]
    public void The_program_says_nothing_of_where_libraries_are() =>
        Assert.DoesNotMatch(@"\((RPATH|RUNPATH)\)", new Command("readelf", "-dW", Programs.Pesto).RunOrFail());

    [Fact]
    public void The_static_program_needs_nothing()
    {
        Assert.SkipUnless(File.Exists(Programs.StaticPesto), "not built: ./build.sh static");
        Assert.Empty(Needed(Programs.StaticPesto));
        Assert.DoesNotContain("INTERP", new Command("readelf", "-lW", Programs.StaticPesto).RunOrFail());
    }

    [Fact]
    public void The_static_program_forwards_too()
    {
        Assert.SkipUnless(File.Exists(Programs.StaticPesto), "not built: ./build.sh static");
        using Testbed bed = new();
        using TcpService service = TcpService.Says(bed.Container, 80, "inside");
        string control = bed.Folder["control"];
        Command serve = new Command(Programs.StaticPesto, "serve", "-f", "-c", control, "--netns", bed.Container.Path, "-t", "8080:80").In(bed.Host);
        using RunningForwarder pesto = new(bed, control, serve.Start());
        using System.Net.Sockets.Socket client = bed.Host.Connect(8080);
        Assert.Equal("inside", client.ReadToEnd());
        Assert.Equal(0, new Command(Programs.StaticPesto, "-A", "-t", "8081:80", control).Run().ExitStatus);
        Assert.True(bed.Host.Accepts(8081));
    }

    /// <summary>The libraries that a program wants loaded, by their names.</summary>
    static string[] Needed(string program) => [.. new Command("readelf", "-dW", program).RunOrFail()
        .Split('\n')
        .Where(line => line.Contains("(NEEDED)"))
        .Select(line => line[(line.IndexOf('[') + 1)..line.IndexOf(']')])];
}
