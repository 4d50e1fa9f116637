using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Client;

/// <summary>What came of an update.</summary>
sealed class Outcome(string result, bool isInForce, int exitStatus)
{
    /// <summary>A port that could not be opened, or would not be.</summary>
    public readonly record struct Failure(string Pif, Rule Rule, ushort Port, Errno Error)
    {
        /// <summary>Tolerated: the rule says that it wants what can be had.</summary>
        public bool IsTolerated => Rule.IsWeak;

        public override string ToString() => $"{Rule.At(Port)}: {Error.Text()}";
    }

    /// <summary>One word for scripts: committed, refused, rolled-back, unconfirmed or dry-run.</summary>
    public string Result => result;

    /// <summary>Whether the server's tables now are the new ones.</summary>
    public bool IsInForce => isInForce;

    public int ExitStatus => exitStatus;

    /// <summary>In the order of the rules; at most as many as the server names.</summary>
    public IReadOnlyList<Failure> Failures { get; init; } = [];

    /// <summary>How many there are, named or not.</summary>
    public int FailureCount { get; init; }

    public static Outcome Committed { get; } = new("committed", true, 0);
}
