using Pesto.Client;
using Pesto.CommandLine;

namespace Pesto.Tests.Client;

/// <summary>The client's command line, with the habits of getopt_long(3).</summary>
public sealed class OptionsTests
{
    static string Commands(params string[] args) =>
        string.Join(' ', Options.Parse(args).Commands.Select(c => $"{c.Letter}{(c.Text.Length > 0 ? $"({c.Text})" : "")}"));

    static string Refusal(params string[] args) => Assert.Throws<UsageException>(() => Options.Parse(args)).Message;

    [Fact]
    public void Options_keep_their_order() =>
        Assert.Equal("A t(80) C(HOST) D u(53)", Commands("-A", "-t", "80", "-C", "HOST", "path", "-D", "-u", "53"));

    [Fact]
    public void Short_options_can_be_clustered_and_their_arguments_attached()
    {
        Assert.Equal("A t(80)", Commands("-sAt80", "path"));
        Assert.True(Options.Parse(["-sAt80", "path"]).Show);
    }

    [Fact]
    public void Long_options_can_be_abbreviated_and_have_their_argument_behind_an_equals_sign()
    {
        Assert.Equal("C(HOST) u(53) t(80)", Commands("--cl", "HOST", "--udp-p=53", "--tcp-ports", "80", "path"));
        Assert.Contains("--tcp", Refusal("--tcp", "22", "path"));
    }

    [Fact]
    public void An_argument_is_taken_whatever_it_looks_like()
    {
        Assert.Equal("t(-A)", Commands("-t", "-A", "path"));
        Assert.Equal("C", Commands("--clear=", "path"));
    }

    [Fact]
    public void Nothing_is_an_option_after_two_dashes()
    {
        Assert.Equal("-t", Options.Parse(["--", "-t"]).Path);
        Assert.Equal("-", Options.Parse(["-"]).Path);
        Refusal("-A", "--", "-t", "22");
    }

    [Fact]
    public void Help_and_version_are_all_that_counts()
    {
        Assert.Contains("pesto serve --help", Options.Parse(["-t", "nonsense", "--help", "-x"]).Print);
        Assert.Contains("Apache-2.0", Options.Parse(["--version"]).Print);
    }

    [Fact]
    public void What_is_wrong_is_named()
    {
        Assert.Contains("-x", Refusal("-x", "path"));
        Assert.Contains("--nothing", Refusal("--nothing", "path"));
        Assert.Contains("-t", Refusal("path", "-t"));
        Assert.Contains("--add", Refusal("--add=3", "path"));
        Assert.Contains("PATH", Refusal("-A"));
        Assert.Contains("PATH", Refusal("one", "other"));
    }
}
