namespace Pesto.Client;

/// <summary>Tells which ports could not be opened: a line for each, up to a number that still can be read.</summary>
static class Failures
{
    const int MostLines = 20;

    public static void Tell(IReadOnlyList<Outcome.Failure> failures, int count, Action<string> tell)
    {
        for (int i = 0; i < failures.Count && i < MostLines; i++)
            tell(failures[i].ToString());
        if (count > MostLines)
            tell($"and {count - MostLines} more ports");
    }
}
