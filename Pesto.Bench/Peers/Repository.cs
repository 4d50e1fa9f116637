namespace Pesto.Bench.Peers;

/// <summary>The working copy that this program was built from.</summary>
static class Repository
{
    static readonly string? Root = Above(AppContext.BaseDirectory);

    /// <summary>The path of a file in the working copy; null if there is none.</summary>
    public static string? Find(string file)
    {
        string path = Path.Combine(Root ?? ".", file);
        return File.Exists(path) ? Path.GetFullPath(path) : null;
    }

    static string? Above(string? folder) => folder == null || File.Exists(Path.Combine(folder, "Pesto.slnx")) ? folder : Above(Path.GetDirectoryName(folder));
}
