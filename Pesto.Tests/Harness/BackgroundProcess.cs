using System.Diagnostics;
using System.Text;
using Mono.Unix.Native;

namespace Pesto.Tests.Harness;

/// <summary>A program that a test started and that ends with it, together with what it started itself (its process group) and nothing else.</summary>
sealed class BackgroundProcess : IDisposable
{
    static readonly TimeSpan ToDrain = TimeSpan.FromSeconds(2);

    readonly Command command;
    readonly Process process;
    readonly StringBuilder output = new();
    readonly StringBuilder errors = new();
    readonly Task readers;
    bool disposed;

    public BackgroundProcess(Command command, Process process)
    {
        this.command = command;
        this.process = process;
        this.Id = process.Id;
        this.readers = Task.WhenAll(Collect(process.StandardOutput, this.output), Collect(process.StandardError, this.errors));
    }

    public int Id { get; }

    public bool HasEnded => this.process.HasExited;

    /// <summary>What it wrote to standard output so far.</summary>
    public string Output => Text(this.output);

    public string Errors => Text(this.errors);

    /// <summary>How many descriptors it has open.</summary>
    public int Descriptors => Directory.GetFileSystemEntries($"/proc/{this.Id}/fd").Length;

    /// <summary>The memory that it has resident, in bytes.</summary>
    public long Resident => long.Parse(File.ReadAllText($"/proc/{this.Id}/statm").Split(' ')[1]) * Environment.SystemPageSize;

    public void Write(string text)
    {
        try
        {
            this.process.StandardInput.Write(text);
            this.process.StandardInput.Flush();
        }
        catch (IOException)
        {
            // It ended without reading. Its exit status tells why.
        }
    }

    public void CloseInput()
    {
        try
        {
            this.process.StandardInput.Close();
        }
        catch (IOException)
        {
        }
    }

    public void Signal(Signum signal) => Syscall.kill(this.Id, signal);

    public Finished WaitForEnd(TimeSpan limit)
    {
        if (!this.process.WaitForExit(limit))
        {
            this.EndGroup();
            Assert.Fail($"{this.command}: still running after {limit.TotalSeconds} s\n{this.Output}{this.Errors}");
        }

        // A daemon that it left behind may hold its standard output open: what has been written by now is all there is.
        this.readers.Wait(ToDrain);
        return new Finished(this.process.ExitCode, this.Output, this.Errors);
    }

    /// <summary>Waits until it is ready as <paramref name="ready"/> sees it, and fails at once if it ends instead.</summary>
    public void WaitUntil(Func<bool> ready, string what) => Eventually.True(
        () =>
        {
            if (this.HasEnded)
                Assert.Fail($"{this.command}: ended before {what}: {this.WaitForEnd(TimeSpan.Zero)}");
            return ready();
        },
        $"{this.command}: {what}");

    public void Dispose()
    {
        if (this.disposed)
            return;
        this.disposed = true;
        this.EndGroup();
        this.process.WaitForExit();
        this.process.Dispose();
    }

    void EndGroup() => Syscall.kill(-this.Id, Signum.SIGKILL);

    static async Task Collect(StreamReader from, StringBuilder to)
    {
        char[] buffer = new char[4096];
        int count;
        while ((count = await from.ReadAsync(buffer)) > 0)
        {
            lock (to)
                to.Append(buffer, 0, count);
        }
    }

    static string Text(StringBuilder builder)
    {
        lock (builder)
            return builder.ToString();
    }
}
