using Mono.Unix;
using Mono.Unix.Native;

namespace Pesto.Tests.Harness;

/// <summary>Where the programs are that tests start: ours as `./build.sh` leaves it, and Debian's as `./build.sh peers` does.</summary>
static class Programs
{
    /// <summary>Where build.sh is.</summary>
    public static readonly string Root = FindRoot();

    /// <summary>The native program; PESTO_BINARY names another one to test.</summary>
    public static readonly string Pesto = ReachableByAnybody(Environment.GetEnvironmentVariable("PESTO_BINARY") ?? Path.Combine(Root, "out/pesto"));

    /// <summary>The same with checks of what has to hold in it, for tests that go on for long or make calls fail.</summary>
    public static string Checked => CheckedCopy.Value;

    static readonly Lazy<string> CheckedCopy = new(() => ReachableByAnybody(Environment.GetEnvironmentVariable("PESTO_BINARY") ?? Path.Combine(Root, "out/pesto-checked")));

    /// <summary>The tests' own folder.</summary>
    public static readonly string Sources = Path.Combine(Root, "Pesto.Tests");

    /// <summary>The same without any library, if it was built.</summary>
    public static string StaticPesto => Path.Combine(Root, "out/pesto-static");

    static readonly string Peers = Path.Combine(Root, ".cache/peers/bin");

    public static string RealPasta => Path.Combine(Peers, "pasta");

    public static string RealPesto => Path.Combine(Peers, "pesto");

    /// <summary>For tests against the real pasta and pesto: skips where they have not been fetched, unless PESTO_REQUIRE_PEERS says that they have to be there.</summary>
    public static void NeedPeers() => Need(File.Exists(RealPasta), "the real pasta is not there: ./build.sh peers");

    /// <summary>The same for tests that use another program.</summary>
    public static void Need(string program) => Need(
        (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Append("/usr/sbin").Any(folder => File.Exists(Path.Combine(folder, program))),
        $"{program} is not installed: ./build.sh peers all");

    static void Need(bool isThere, string otherwise)
    {
        Assert.True(isThere || Environment.GetEnvironmentVariable("PESTO_REQUIRE_PEERS") != "1", otherwise);
        Assert.SkipUnless(isThere, otherwise);
    }

    static string FindRoot()
    {
        for (string? folder = AppContext.BaseDirectory; folder != null; folder = Path.GetDirectoryName(folder))
        {
            if (File.Exists(Path.Combine(folder, "build.sh")))
                return folder;
        }

        throw new InvalidOperationException($"no build.sh above {AppContext.BaseDirectory}");
    }

    /// <summary>Tests also run the program as an ordinary user, who can't reach into a checkout under /root: then it is a copy.</summary>
    static string ReachableByAnybody(string program)
    {
        if (!File.Exists(program))
            throw new FileNotFoundException($"{program} is not there: ./build.sh test, without a filter or with one that names the test");
        bool reachable = true;
        for (string? folder = Path.GetDirectoryName(Path.GetFullPath(program)); folder != null; folder = Path.GetDirectoryName(folder))
            reachable &= (new UnixDirectoryInfo(folder).FileAccessPermissions & FileAccessPermissions.OtherExecute) != 0;
        if (reachable)
            return program;
        TempFolder copies = new();
        AppDomain.CurrentDomain.ProcessExit += (_, _) => copies.Dispose();
        string copy = copies["pesto"];
        File.Copy(program, copy);
        Syscall.chmod(copy, NativeConvert.FromOctalPermissionString("755"));
        return copy;
    }
}
