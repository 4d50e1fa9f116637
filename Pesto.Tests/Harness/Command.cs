using System.Diagnostics;

namespace Pesto.Tests.Harness;

/// <summary>A program of the table or, named by its path, one of ours, with its arguments, and where and as whom it runs.</summary>
sealed record Command(string Program, params string[] Arguments)
{
    static readonly TimeSpan LongestRun = TimeSpan.FromSeconds(30);

    NetworkNamespace? Namespace { get; init; }

    Account? Account { get; init; }

    string Input { get; init; } = "";

    public Command In(NetworkNamespace where) => this with { Namespace = where };

    public Command As(Account? who) => this with { Account = who };

    public Command WithInput(string text) => this with { Input = text };

    /// <summary>Runs to the end, which must come within the time limit.</summary>
    public Finished Run(TimeSpan? limit = null)
    {
        using BackgroundProcess process = Start();
        process.Write(Input);
        process.CloseInput();
        return process.WaitForEnd(limit ?? LongestRun);
    }

    /// <summary>Runs what must succeed for the test to make sense.</summary>
    public string RunOrFail()
    {
        Finished finished = Run();
        Assert.True(finished.ExitStatus == 0, $"{this}: {finished}");
        return finished.Output;
    }

    /// <summary>Starts it in a process group of its own, with its standard input left open.</summary>
    public BackgroundProcess Start()
    {
        // Each of these replaces itself by the next, so that the process id is the program's in the end.
        string program = Program.Contains('/') ? Program : Programs.Find(Program);
        string[] words = [Programs.Find("setsid"), .. Namespace?.Become(Account) ?? Account?.Become ?? [], program, .. Arguments];
        ProcessStartInfo start = new(words[0], words[1..])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.Environment["LC_ALL"] = "C";
        start.Environment["PATH"] = Programs.SearchPath;
        return new BackgroundProcess(this, Namespace?.Run(() => Forks.Start(start)) ?? Forks.Start(start));
    }

    public override string ToString() => string.Join(' ', [Program, .. Arguments]);
}

/// <summary>How a program ended. The exit status is 128 and the signal's number for one that a signal ended.</summary>
sealed record Finished(int ExitStatus, string Output, string Errors)
{
    public override string ToString() => $"exit status {ExitStatus}\n{Output}{Errors}";
}
