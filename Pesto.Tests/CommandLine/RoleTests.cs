using Pesto.Client;
using Pesto.CommandLine;
using Pesto.Forwarder.Startup;

namespace Pesto.Tests.CommandLine;

/// <summary>What is declared of options, once, is what the parser takes and the help says.</summary>
public sealed class RoleTests
{
    [Fact]
    public void No_letter_and_no_name_stands_for_two_options()
    {
        AssertNoneTwice(Options.Role);
        AssertNoneTwice(ServeOptions.Role);
    }

    [Fact]
    public void Help_has_every_option_and_fits_a_terminal()
    {
        AssertHelp(Options.Role);
        AssertHelp(ServeOptions.Role);
    }

    [Fact]
    public void An_option_is_found_by_its_letter_and_its_name()
    {
        AssertFound(Options.Role);
        AssertFound(ServeOptions.Role);
    }

    [Fact]
    public void A_prefix_of_two_names_is_ambiguous_unless_it_is_one_of_them()
    {
        Role<RoleTests> role = new(["x"], "", "", new OptionGroup<RoleTests>("", Named("port"), Named("ports-all"), Named("other"), Named("others", whole: true)));
        Assert.Equal("port", role.Find("port")?.Name);
        Assert.Equal("ports-all", role.Find("ports")?.Name);
        Assert.Equal("--por could be --port or --ports-all", Assert.Throws<UsageException>(() => role.Find("por")).Message);
        Assert.Equal("other", role.Find("oth")?.Name);
        Assert.Equal("others", role.Find("others")?.Name);
        Assert.Null(role.Find("x"));
    }

    static Option<RoleTests> Named(string name, bool whole = false) => new(name, null, "", (_, _) => { }, whole);

    static Option<T>[] All<T>(Role<T> role) => [.. role.Groups.ToArray().SelectMany(g => g.Options)];

    static void AssertNoneTwice<T>(Role<T> role)
    {
        Assert.Empty(All(role).GroupBy(o => o.Name).Where(g => g.Count() > 1).Select(g => g.Key));
        Assert.Empty(All(role).Where(o => o.Letter != '\0').GroupBy(o => o.Letter).Where(g => g.Count() > 1).Select(g => g.Key));
    }

    static void AssertHelp<T>(Role<T> role)
    {
        string[] lines = role.Help().Split('\n');
        Assert.All(All(role), o => Assert.Contains(lines, l => l.Contains($"--{o.Name}{(o.Argument is null ? "" : $" {o.Argument}")}")));
        Assert.All(lines, l => Assert.True(l.Length <= 88, l));
    }

    static void AssertFound<T>(Role<T> role) => Assert.All(All(role), o =>
    {
        Assert.Same(o, role.Find(o.Name));
        if (o.Letter != '\0')
            Assert.Same(o, role.Find(o.Letter));
    });
}
