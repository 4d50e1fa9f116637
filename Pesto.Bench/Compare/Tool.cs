using System.Diagnostics;

namespace Pesto.Bench.Compare;

/// <summary>Programs of the system: where they are, and what they say.</summary>
static class Tool
{
    static readonly string[] SystemFolders = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

    /// <summary>The path of a program in PATH or where Debian keeps what root uses; null when it is not installed.</summary>
    public static string? Find(string name) => (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Concat(SystemFolders)
        .Where(folder => folder.Length > 0).Select(folder => Path.Combine(folder, name)).FirstOrDefault(File.Exists);

    /// <summary>Runs a program to its end and returns what it printed; a failure is an exception that carries its words.</summary>
    public static string Run(params string[] command)
    {
        (int status, string text) = Try(command);
        return status == 0 ? text : throw new InvalidOperationException($"{string.Join(' ', command)}: {text.Trim()} (status {status})");
    }

    public static (int Status, string Text) Try(params string[] command)
    {
        ProcessStartInfo start = new(Find(command[0]) ?? command[0], command.Skip(1)) { RedirectStandardOutput = true, RedirectStandardError = true };
        using Process process = Process.Start(start)!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output + errors.Result);
    }
}
