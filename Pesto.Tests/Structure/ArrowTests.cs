using System.Text.RegularExpressions;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Structure;

/// <summary>A namespace of the program uses those that stand before it in one list, and no other: there are no cycles, and one can read the folders in this order.</summary>
public sealed partial class ArrowTests
{
    /// <summary>From the ground up. Namespaces in one line do not use each other.</summary>
    static readonly string[][] Layers =
    [
        ["Pesto.Linux"],
        ["Pesto.Rules"],
        ["Pesto.Protocol"],
        ["Pesto.CommandLine"],
        ["Pesto.Client"],
        ["Pesto.Forwarder.Reporting"],
        ["Pesto.Forwarder.Loop"],
        ["Pesto.Forwarder.Namespace"],
        ["Pesto.Forwarder.Listening"],
        ["Pesto.Forwarder.Tcp", "Pesto.Forwarder.Udp"],
        ["Pesto.Forwarder.Accepting"],
        ["Pesto.Forwarder.Commit"],
        ["Pesto.Forwarder.Control"],
        ["Pesto.Forwarder.Startup"],
        ["Pesto.Forwarder"],
        ["Pesto"],
    ];

    /// <summary>Forbidden though they point the right way: the two roles know nothing of each other, and only the start of the forwarder knows of command lines.</summary>
    static bool IsForbidden(string from, string to) =>
        (from.StartsWith("Pesto.Forwarder") && to == "Pesto.Client")
        || (from.StartsWith("Pesto.Forwarder.") && from != "Pesto.Forwarder.Startup" && to == "Pesto.CommandLine");

    [Fact]
    public void Each_namespace_uses_only_those_before_it() => Assert.Empty(Wrong(SourceFiles()));

    [Fact]
    public void Every_namespace_has_its_place_in_the_list() =>
        Assert.Equal(Layers.SelectMany(layer => layer).Order(), SourceFiles().Select(file => file.Namespace).Distinct().Order());

    [Theory]
    [InlineData("Pesto.Linux", "using Pesto.Rules;\nclass A;", "Pesto.Rules")]
    [InlineData("Pesto.Forwarder.Tcp", "using static Pesto.Forwarder.Udp.UdpFlows;\nclass A;", "Pesto.Forwarder.Udp")]
    [InlineData("Pesto.Forwarder.Loop", "using Flows = Pesto.Forwarder.Tcp.TcpFlows;\nclass A;", "Pesto.Forwarder.Tcp")]
    [InlineData("Pesto.Forwarder.Loop", "class A { Listening.Listeners _all; }", "Pesto.Forwarder.Listening")]
    [InlineData("Pesto.Rules", "class A { object _a = new Forwarder.Loop.EventLoop(); }", "Pesto.Forwarder.Loop")]
    [InlineData("Pesto.Forwarder.Commit", "class A { Service _all; }", "Pesto.Forwarder")]
    [InlineData("Pesto.Client", "class A { int _a = Program.Main([]); }", "Pesto")]
    [InlineData("Pesto.Forwarder", "using Pesto.Client;\nclass A;", "Pesto.Client")]
    public void A_forbidden_use_is_found(string from, string text, string to)
    {
        SourceFile added = new("Added.cs", from, text);
        Assert.Equal([$"Added.cs: {from} uses {to}"], Wrong([.. SourceFiles(), added]).Where(line => line.StartsWith("Added")));
    }

    [Theory]
    [InlineData("Pesto.Linux", "/// <summary>Unlike Forwarder.Loop.EventLoop.</summary>\n// using Pesto.Rules;\nclass A { string _a = \"Pesto.Rules.Rule\"; }")]
    [InlineData("Pesto.Forwarder.Startup", "using Pesto.CommandLine;\nusing Pesto.Forwarder.Loop;\nclass A;")]
    public void An_allowed_one_is_not(string from, string text) =>
        Assert.DoesNotContain(Wrong([.. SourceFiles(), new("Added.cs", from, text)]), line => line.StartsWith("Added"));

    static IEnumerable<string> Wrong(IReadOnlyList<SourceFile> files)
    {
        ILookup<string, string> types = files.SelectMany(file => file.Types.Select(type => (file.Namespace, type))).ToLookup(pair => pair.Namespace, pair => pair.type);
        string[] names = [.. Layers.SelectMany(layer => layer)];
        return
            from file in files
            from used in names
            where used != file.Namespace && (Rank(used) >= Rank(file.Namespace) || IsForbidden(file.Namespace, used)) && file.Uses(used, types[used])
            select $"{file.Path}: {file.Namespace} uses {used}";
    }

    static int Rank(string name) => Array.FindIndex(Layers, layer => layer.Contains(name));

    static List<SourceFile> SourceFiles()
    {
        string root = Path.Combine(Programs.Root, "Pesto");
        return
        [
            .. from path in Directory.EnumerateFiles(root, "*.cs", SearchOption.AllDirectories)
               let inside = Path.GetRelativePath(root, path)
               where !inside.StartsWith("obj/") && !inside.StartsWith("bin/")
               let folder = Path.GetDirectoryName(inside)!
               select new SourceFile(inside, folder == "" ? "Pesto" : $"Pesto.{folder.Replace('/', '.')}", File.ReadAllText(path)),
        ];
    }

    /// <summary>A file of the program. That its namespace is its folder's is for the compiler to say (IDE0130).</summary>
    sealed partial class SourceFile(string path, string @namespace, string text)
    {
        readonly string _code = NotCode().Replace(text, " ");

        public string Path => path;

        public string Namespace => @namespace;

        /// <summary>The types that it declares.</summary>
        public IEnumerable<string> Types => Declaration().Matches(_code).Select(match => match.Groups[1].Value);

        /// <summary>Whether it names a namespace, or a type of it by way of one that encloses both, or a type of one that encloses its own.</summary>
        public bool Uses(string used, IEnumerable<string> types)
        {
            // Every way to write it: Pesto.Forwarder.Loop, Forwarder.Loop, Loop.
            string[] words = used.Split('.');
            string name = string.Join('|', words.Select((_, i) => string.Join(@"\.", words[i..])));
            string type = string.Join('|', types);
            return Regex.IsMatch(_code, $@"\busing\s+([\w]+\s*=\s*)?(static\s+)?({name})\s*;")
                || Regex.IsMatch(_code, $@"(?<![\w.])({name})\.({type})\b")
                // Types of an enclosing namespace need no more than their name. A method may have it too.
                || (@namespace.StartsWith($"{used}.") && Regex.IsMatch(_code, $@"(?<![\w.])({type})(?=\s+\w|\s*[.?>[])"));
        }

        /// <summary>Comments and texts.</summary>
        [GeneratedRegex(""""//[^\n]*|/\*.*?\*/|""".*?"""|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)+'"""", RegexOptions.Singleline)]
        private static partial Regex NotCode();

        [GeneratedRegex(@"\b(?:class|struct|enum|interface|record|record struct)\s+([A-Z]\w*)")]
        private static partial Regex Declaration();
    }
}
