using System.Text.Json;

namespace Pesto.Tests.Client;

/// <summary>What Debian's pesto did, recorded against a scripted control socket: the client must do the same.</summary>
static class Corpus
{
    /// <summary>Stands for the socket's path in arguments and output.</summary>
    public const string Socket = "{SOCK}";

    static readonly Recordings Recorded = Read();

    public static int Count => Recorded.Cases.Length;

    public static Recording Case(int index) => Recorded.Cases[index];

    /// <summary>What the server says at the start, by the name of the state.</summary>
    public static byte[] State(string name) => Convert.FromHexString(Recorded.States[name]);

    /// <summary>The ephemeral ports of the machine on which the recordings were made.</summary>
    public static string LocalPortRange => string.Join('\t', Recorded.LocalPortRange);

    static Recordings Read()
    {
        string? folder = AppContext.BaseDirectory;
        while (folder != null && !File.Exists(Path.Combine(folder, "global.json")))
            folder = Path.GetDirectoryName(folder);
        string path = Path.Combine(folder ?? throw new InvalidOperationException("no global.json above the tests"), "Pesto.Tests/Corpus/pesto-cli.json");
        JsonSerializerOptions options = new() { PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower };
        return JsonSerializer.Deserialize<Recordings>(File.ReadAllText(path), options) ?? throw new InvalidDataException(path);
    }

    sealed record Recordings(Dictionary<string, string> States, string[] LocalPortRange, Recording[] Cases);
}

/// <param name="State">What the server says, by name.</param>
/// <param name="Argv">The command line, <see cref="Corpus.Socket"/> for the path.</param>
/// <param name="Sent">What the client sends after reading the state, hex.</param>
/// <param name="Stdout">Null: not compared.</param>
/// <param name="Stderr">Whether anything went there.</param>
/// <param name="Note">If there is one, what Debian's pesto did to standard error is no example.</param>
sealed record Recording(string State, string[] Argv, int Exit, string Sent, string? Stdout, bool Stderr, string? Note)
{
    /// <summary>Whether "all" or "auto" may be meant, whose ports depend on the machine.</summary>
    public bool DependsOnEphemeralPorts => Argv.Any(a => a.Contains("all") || a.Contains("auto") || a.Contains('~'));

    public override string ToString() => $"{State}: {string.Join(' ', Argv)}";
}
