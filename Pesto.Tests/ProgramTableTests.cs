using Pesto.Tests.Harness;
using Xunit.Sdk;

namespace Pesto.Tests;

/// <summary>What tests start is in one table, from which everything else that tells of these programs comes.</summary>
public sealed class ProgramTableTests
{
    /// <summary>A program that every Debian system has and no test needs.</summary>
    const string Unlisted = "whoami";

    [Fact]
    public void A_test_that_starts_a_program_of_no_line_fails()
    {
        Assert.DoesNotContain(Unlisted, Programs.Table.Keys);
        Assert.Contains($"no test may start {Unlisted}", Assert.ThrowsAny<XunitException>(() => new Command(Unlisted).Run()).Message);
    }

    [Fact]
    public void A_script_of_a_test_that_starts_a_program_of_no_line_fails() => Assert.Equal(127, new Command("sh", "-c", Unlisted).Run().ExitStatus);

    [Fact]
    public void A_test_that_starts_a_program_that_it_does_not_say_it_needs_fails()
    {
        Assert.Contains("is marked [Needs(\"curl\")]", Assert.ThrowsAny<XunitException>(() => new Command("curl", "--version").Run()).Message);
        Assert.Equal(127, new Command("sh", "-c", "curl --version").Run().ExitStatus);
    }

    [Fact]
    [Needs("curl")]
    public void A_test_that_says_what_it_needs_has_it()
    {
        Assert.StartsWith("curl ", new Command("curl", "--version").RunOrFail());
        Assert.StartsWith("curl ", new Command("sh", "-c", "curl --version").RunOrFail());
    }

    [Fact]
    public void The_readme_says_what_to_install_for_building_and_what_more_is_tested_with()
    {
        string readme = File.ReadAllText(Path.Combine(Programs.Sources, "../README.md")).ReplaceLineEndings(" ");
        Assert.Contains($"`apt-get install {Packages(ProgramRow.Built)}`", readme);
        Assert.Contains($"for the tests {Packages(ProgramRow.Peers)}; for the benchmarks {Packages(ProgramRow.Bench)}.", readme);
    }

    static string Packages(string when) => string.Join(' ', Programs.Table.Values.Where(row => row.When == when).SelectMany(row => row.Packages).Distinct());
}
