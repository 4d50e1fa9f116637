using Mono.Unix;
using Mono.Unix.Native;

namespace Pesto.Tests.Harness;

/// <summary>
/// Where the programs are that tests start: ours as `./build.sh` leaves it, and those of the table in programs.txt. Commands of a test find
/// no others, by whatever shell script they are started, since their PATH is made of links to these.
/// </summary>
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

    /// <summary>With PESTO_HIDE_PROGRAMS=1, all that not every machine has is as if it were not there.</summary>
    static readonly bool Hidden = Environment.GetEnvironmentVariable("PESTO_HIDE_PROGRAMS") == "1";

    /// <summary>With PESTO_REQUIRE_PEERS=1, a test fails where it would be skipped for want of a program.</summary>
    static readonly bool Required = Environment.GetEnvironmentVariable("PESTO_REQUIRE_PEERS") == "1";

    static readonly string Peers = Path.Combine(Root, ".cache/peers/bin");

    /// <summary>All programs that a test may start, by name.</summary>
    public static readonly IReadOnlyDictionary<string, ProgramRow> Table = ProgramRow.Load(Path.Combine(Sources, "programs.txt")).ToDictionary(row => row.Name);

    static readonly string Links = MakeLinks();

    /// <summary>The same as <see cref="Pesto"/> without any library, if it was built.</summary>
    public static string StaticPesto => Path.Combine(Root, "out/pesto-static");

    public static string RealPasta => Find("pasta");

    public static string RealPesto => Find("pesto");

    /// <summary>What the current test may start by a name without a folder: what every machine has, and what the test says that it needs.</summary>
    public static string SearchPath => string.Join(':', [LinksTo(null), .. Declared.Select(LinksTo)]);

    static IEnumerable<string> Declared =>
        TestContext.Current.Test?.Traits is { } traits && traits.TryGetValue(NeedsAttribute.Program, out IReadOnlyCollection<string>? programs) ? programs : [];

    /// <summary>A program of the table, by its name; fails if it isn't in there, or if the test does not say that it needs it.</summary>
    public static string Find(string program)
    {
        Assert.True(
            Table.TryGetValue(program, out ProgramRow? row) && row.When != ProgramRow.Bench,
            $"no test may start {program}: Pesto.Tests/programs.txt does not have it, with the Debian package that it comes with");
        Assert.True(!row.IsOptional || Declared.Contains(program), $"a test that starts {program} is marked [Needs(\"{program}\")]");
        return Path.Combine(LinksTo(row.IsOptional ? program : null), program);
    }

    /// <summary>Skips the test if the program is not there, and says which command would bring it.</summary>
    public static void SkipWithout(string program)
    {
        ProgramRow row = Table[program];
        bool isThere = File.Exists(Path.Combine(LinksTo(program), program));
        string otherwise = $"{program} is not here: ./build.sh {(row.When == ProgramRow.Fetched ? "peers" : "peers all")}";
        Assert.True(isThere || !Required, otherwise);
        Assert.SkipUnless(isThere, otherwise);
    }

    /// <summary>The folder of links to what every machine has, or to one other program.</summary>
    static string LinksTo(string? program) => Path.Combine(Links, program == null ? "all" : $"only-{program}");

    static string MakeLinks()
    {
        TempFolder folder = new();
        AppDomain.CurrentDomain.ProcessExit += (_, _) => folder.Dispose();
        // Ordinary users may look things up here, and not put others in their place.
        Syscall.chmod(folder.Path, NativeConvert.FromOctalPermissionString("755"));
        // An ordinary user's PATH lacks the last two on Debian.
        string[] folders = [.. (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':'), "/usr/sbin", "/sbin"];
        foreach (ProgramRow row in Table.Values.Where(row => row.When != ProgramRow.Bench))
        {
            string links = folder[row.IsOptional ? $"only-{row.Name}" : "all"];
            Directory.CreateDirectory(links);
            string? program = (row.When == ProgramRow.Fetched ? [Peers] : folders).Select(from => Path.Combine(from, row.Name)).FirstOrDefault(File.Exists);
            if (program != null && !(row.IsOptional && Hidden))
                File.CreateSymbolicLink(Path.Combine(links, row.Name), program);
        }

        return folder.Path;
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
