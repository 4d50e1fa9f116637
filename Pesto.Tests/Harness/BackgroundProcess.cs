using System.Diagnostics;
using System.Text;
using Mono.Unix.Native;

namespace Pesto.Tests.Harness;

/// <summary>A program that a test started and that ends with it, together with what it started itself (its process group) and nothing else.</summary>
sealed class BackgroundProcess : IDisposable
{
    static readonly TimeSpan ToDrain = TimeSpan.FromSeconds(2);

    readonly Command _command;
    readonly Process _process;
    readonly StringBuilder _output = new();
    readonly StringBuilder _errors = new();
    readonly Task _readers;
    bool _disposed;

    public BackgroundProcess(Command command, Process process)
    {
        _command = command;
        _process = process;
        Id = process.Id;
        _readers = Task.WhenAll(Collect(process.StandardOutput, _output), Collect(process.StandardError, _errors));
    }

    public int Id { get; }

    public bool HasEnded => _process.HasExited;

    /// <summary>What it wrote to standard output so far.</summary>
    public string Output => Text(_output);

    public string Errors => Text(_errors);

    /// <summary>How many descriptors it has open.</summary>
    public int Descriptors => Directory.GetFileSystemEntries($"/proc/{Id}/fd").Length;

    /// <summary>The memory that it has resident, in bytes.</summary>
    public long Resident => long.Parse(File.ReadAllText($"/proc/{Id}/statm").Split(' ')[1]) * Environment.SystemPageSize;

    public void Write(string text)
    {
        try
        {
            _process.StandardInput.Write(text);
            _process.StandardInput.Flush();
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
            _process.StandardInput.Close();
        }
        catch (IOException)
        {
        }
    }

    public void Signal(Signum signal)
    {
        if (!HasEnded)
            Syscall.kill(Id, signal);
    }

    public Finished WaitForEnd(TimeSpan limit)
    {
        if (!_process.WaitForExit(limit))
        {
            EndGroup();
            Assert.Fail($"{_command}: still running after {limit.TotalSeconds} s\n{Output}{Errors}");
        }

        // A daemon that it left behind may hold its standard output open: what has been written by now is all there is.
        _readers.Wait(ToDrain);
        return new Finished(_process.ExitCode, Output, Errors);
    }

    /// <summary>Waits until it is ready as <paramref name="ready"/> sees it, and fails at once if it ends instead.</summary>
    public void WaitUntil(Func<bool> ready, string what) => Eventually.True(
        () =>
        {
            if (HasEnded)
                Assert.Fail($"{_command}: ended before {what}: {WaitForEnd(TimeSpan.Zero)}");
            return ready();
        },
        $"{_command}: {what}");

    public void Dispose()
    {
        if (_disposed)
            return;
        _disposed = true;
        EndGroup();
        _process.WaitForExit();
        _process.Dispose();
    }

    /// <summary>
    /// The kernel uses a number again when neither a process nor a group has it. Where the process has ended and another has its number, nothing is
    /// left of the group, and what would be killed is somebody else's.
    /// </summary>
    void EndGroup()
    {
        if (!HasEnded || !Directory.Exists($"/proc/{Id}"))
            Syscall.kill(-Id, Signum.SIGKILL);
    }

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
