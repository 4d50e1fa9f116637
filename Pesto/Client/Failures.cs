namespace Pesto.Client;

/// <summary>Tells which ports could not be opened: a line for each, up to a number that still can be read.</summary>
static class Failures
{
    const int MostLines = 20;

    public static void Tell(IReadOnlyList<Outcome.Failure> failures, int count, Action<string> tell)
    {
        int told = Math.Min(failures.Count, MostLines);
        for (int i = 0; i < told; i++)
            tell(failures[i].ToString());
        if (count > told)
            tell($"{(told == 0 ? "ports that the server does not name" : "and more ports")}: {count - told}");
    }
}
