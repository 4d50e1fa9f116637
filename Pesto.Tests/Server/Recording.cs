using System.Text.Json;

namespace Pesto.Tests.Server;

/// <summary>What Debian's pasta did with streams of bytes on its control socket: `pesto serve` must do the same.</summary>
/// <param name="Hello">What it says first, hex.</param>
/// <param name="Base">The stream that sets the tables as each case finds them, hex.</param>
/// <param name="Cases">Each sends one stream and closes.</param>
sealed record Recording(string Hello, string Base, Recording.Case[] Cases)
{
    /// <param name="Stream">Hex.</param>
    /// <param name="After">The rules of each pif that are listed afterwards, hex.</param>
    /// <param name="Applied">Whether that differs from before.</param>
    public sealed record Case(string Name, string Stream, Dictionary<byte, string> After, bool Applied);

    public static Recording Load()
    {
        string? folder = AppContext.BaseDirectory;
        while (folder != null && !File.Exists(Path.Combine(folder, "global.json")))
            folder = Path.GetDirectoryName(folder);
        string path = Path.Combine(folder ?? throw new InvalidOperationException("no global.json above the tests"), "Pesto.Tests/Corpus/control-server.json");
        JsonSerializerOptions options = new() { PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower };
        return JsonSerializer.Deserialize<Recording>(File.ReadAllText(path), options) ?? throw new InvalidDataException(path);
    }
}
