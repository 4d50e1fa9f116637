using Pesto.Bench.Compare;

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

    /// <summary>What is checked out, such as "6be9baf", with a plus sign if files differ from it; "?" where git can't say.</summary>
    public static string Commit
    {
        get
        {
            (int status, string text) = Tool.Try("git", "-C", Root ?? ".", "describe", "--always", "--dirty=+");
            return status == 0 ? text.Trim() : "?";
        }
    }

    static string? Above(string? folder) => folder == null || File.Exists(Path.Combine(folder, "Pesto.slnx")) ? folder : Above(Path.GetDirectoryName(folder));
}
