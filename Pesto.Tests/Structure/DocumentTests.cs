using System.Text.RegularExpressions;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Structure;

/// <summary>The documents name files and folders that are there.</summary>
public sealed partial class DocumentTests
{
    static readonly string Program = Path.Combine(Programs.Root, "Pesto");

    static string Map => File.ReadAllText(Path.Combine(Program, "ARCHITECTURE.md"));

    [Fact]
    public void Each_file_that_the_map_names_is_there() =>
        Assert.All(FileName().Matches(Map).Select(match => match.Groups[1].Value).Distinct(), name => Assert.True(IsThere(name), name));

    [Fact]
    public void Each_folder_of_the_program_is_on_the_map() => Assert.All(
        Directory.EnumerateDirectories(Program, "*", SearchOption.AllDirectories)
            .Where(folder => Directory.EnumerateFiles(folder, "*.cs").Any())
            .Select(folder => Path.GetRelativePath(Program, folder))
            .Where(folder => !folder.StartsWith("obj") && !folder.StartsWith("bin")),
        folder => Assert.Matches($@"(?m)^\|[^|]*\b{folder}\b[^|]*\|", Map));

    static bool IsThere(string name) =>
        new[] { Program, Path.Combine(Program, "Forwarder"), Programs.Root }.Any(folder => File.Exists(Path.Combine(folder, name)));

    [GeneratedRegex(@"`([\w./]+/\w+\.cs)`")]
    private static partial Regex FileName();
}
