using System.Diagnostics;

namespace Pesto.Bench.Compare;

/// <summary>A process that is ended when it is disposed of. What it says on standard error is kept for messages.</summary>
sealed class Child : IDisposable
{
    readonly Process _process;
    readonly string _name;
    readonly string _errors;

    /// <param name="name">For messages.</param>
    /// <param name="conversing">Whether to write to its input and read its output; else its output is kept with its errors.</param>
    public Child(string name, IEnumerable<string> command, bool conversing = false, bool compiledAtOnce = false)
    {
        _name = name;
        _errors = Path.Combine("/run", $"errors-{Guid.NewGuid():N}");
        // The shell only redirects: what it starts takes its place.
        string redirect = conversing ? "exec \"$@\" 2>" : "exec \"$@\" </dev/null >";
        string merge = conversing ? "" : " 2>&1";
        ProcessStartInfo start = new("sh", ["-c", redirect + _errors + merge, "sh", .. command])
        {
            RedirectStandardInput = conversing,
            RedirectStandardOutput = conversing,
        };
        // One of the two processors must not be compiling while forwarders are measured.
        if (compiledAtOnce)
            start.Environment["DOTNET_TieredCompilation"] = "0";
        _process = Process.Start(start)!;
    }

    public int Id => _process.Id;

    public bool HasEnded => _process.HasExited;

    /// <summary>The end of what it said on standard error, for a message.</summary>
    public string LastWords => File.Exists(_errors) ? string.Join("; ", File.ReadAllLines(_errors).TakeLast(4)).Trim() : "";

    public void Write(string line)
    {
        _process.StandardInput.WriteLine(line);
        _process.StandardInput.Flush();
    }

    /// <summary>The next line of its output. Silence for longer, and an end, are failures.</summary>
    public string Read(double seconds)
    {
        Task<string?> line = _process.StandardOutput.ReadLineAsync();
        if (!line.Wait(TimeSpan.FromSeconds(seconds)))
            throw new InvalidOperationException($"{_name} said nothing for {seconds} s: {LastWords}");
        return line.Result ?? throw new InvalidOperationException($"{_name} ended: {LastWords}");
    }

    public void Expect(string wanted, double seconds)
    {
        string line = Read(seconds);
        if (line != wanted)
            throw new InvalidOperationException($"{_name} said \"{line}\" instead of \"{wanted}\"");
    }

    /// <summary>Ends it as Ctrl-C does.</summary>
    public void Interrupt()
    {
        _ = Linux.Libc.kill(_process.Id, 2);
        if (!_process.WaitForExit(10_000))
            throw new InvalidOperationException($"{_name} does not end: {LastWords}");
        Dispose();
    }

    /// <summary>Asks it to end, then ends it, with all its descendants.</summary>
    public void Dispose()
    {
        if (!_process.HasExited)
        {
            List<int> all = new ProcessTree(_process.Id).Members();
            _ = Linux.Libc.kill(_process.Id, 15);
            if (!_process.WaitForExit(1000))
                _process.Kill(entireProcessTree: true);
            // What outlived its parent. Identifiers are not used again that soon.
            foreach (int id in all)
                _ = Linux.Libc.kill(id, 9);
        }

        _process.Dispose();
        File.Delete(_errors);
    }
}
