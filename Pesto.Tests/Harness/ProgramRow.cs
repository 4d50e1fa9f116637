namespace Pesto.Tests.Harness;

/// <summary>A line of programs.txt, which explains its words.</summary>
/// <param name="When">How the program gets on a machine.</param>
/// <param name="Name">What it is started by.</param>
/// <param name="Packages">Debian's packages that have it, and what it does not work without.</param>
sealed record ProgramRow(string When, string Name, string[] Packages)
{
    public const string Always = "always";
    public const string Built = "built";
    public const string Peers = "peers";
    public const string Fetched = "fetched";
    public const string Bench = "bench";

    /// <summary>Whether tests do without it where it is not there.</summary>
    public bool IsOptional => When is Peers or Fetched;

    public static IEnumerable<ProgramRow> Load(string path)
    {
        foreach (string line in File.ReadLines(path))
        {
            string[] words = line.Split('#')[0].Split(' ', StringSplitOptions.RemoveEmptyEntries);
            if (words is [Always or Built or Peers or Fetched or Bench, _, _, ..])
                yield return new(words[0], words[1], words[2..]);
            else if (words.Length > 0)
                throw new InvalidDataException($"{path}: not a line of the table: {line}");
        }
    }
}
