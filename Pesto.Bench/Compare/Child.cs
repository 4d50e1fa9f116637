using System.Diagnostics;

namespace Pesto.Bench.Compare;

/// <summary>A process that is ended when it is disposed of. What it says on standard error is kept for messages.</summary>
sealed class Child : IDisposable
{
    readonly Process process;
    readonly string name;
    readonly string errors;

    /// <param name="name">For messages.</param>
    /// <param name="conversing">Whether to write to its input and read its output; else its output is kept with its errors.</param>
    public Child(string name, IEnumerable<string> command, bool conversing = false, bool compiledAtOnce = false)
    {
        this.name = name;
        this.errors = Path.Combine("/run", $"errors-{Guid.NewGuid():N}");
        // The shell only redirects: what it starts takes its place.
        string redirect = conversing ? "exec \"$@\" 2>" : "exec \"$@\" </dev/null >";
        string merge = conversing ? "" : " 2>&1";
        ProcessStartInfo start = new("sh", ["-c", redirect + this.errors + merge, "sh", .. command])
        {
            RedirectStandardInput = conversing,
            RedirectStandardOutput = conversing,
        };
        // One of the two processors must not be compiling while forwarders are measured.
        if (compiledAtOnce)
            start.Environment["DOTNET_TieredCompilation"] = "0";
        this.process = Process.Start(start)!;
    }

    public int Id => this.process.Id;

    public bool HasEnded => this.process.HasExited;

    /// <summary>The end of what it said on standard error, for a message.</summary>
    public string LastWords => File.Exists(this.errors) ? string.Join("; ", File.ReadAllLines(this.errors).TakeLast(4)).Trim() : "";

    public void Write(string line)
    {
        this.process.StandardInput.WriteLine(line);
        this.process.StandardInput.Flush();
    }

    /// <summary>The next line of its output. Silence for longer, and an end, are failures.</summary>
    public string Read(double seconds)
    {
        Task<string?> line = this.process.StandardOutput.ReadLineAsync();
        if (!line.Wait(TimeSpan.FromSeconds(seconds)))
            throw new InvalidOperationException($"{this.name} said nothing for {seconds} s: {this.LastWords}");
        return line.Result ?? throw new InvalidOperationException($"{this.name} ended: {this.LastWords}");
    }

    public void Expect(string wanted, double seconds)
    {
        string line = this.Read(seconds);
        if (line != wanted)
            throw new InvalidOperationException($"{this.name} said \"{line}\" instead of \"{wanted}\"");
    }

    /// <summary>Ends it as Ctrl-C does.</summary>
    public void Interrupt()
    {
        _ = Linux.Libc.kill(this.process.Id, 2);
        if (!this.process.WaitForExit(10_000))
            throw new InvalidOperationException($"{this.name} does not end: {this.LastWords}");
        this.Dispose();
    }

    /// <summary>Asks it to end, then ends it, with all its descendants.</summary>
    public void Dispose()
    {
        if (!this.process.HasExited)
        {
            List<int> all = new ProcessTree(this.process.Id).Members();
            _ = Linux.Libc.kill(this.process.Id, 15);
            if (!this.process.WaitForExit(1000))
                this.process.Kill(entireProcessTree: true);
            // What outlived its parent. Identifiers are not used again that soon.
            foreach (int id in all)
                _ = Linux.Libc.kill(id, 9);
        }

        this.process.Dispose();
        File.Delete(this.errors);
    }
}
