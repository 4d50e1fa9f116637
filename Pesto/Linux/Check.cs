using System.Diagnostics;
using System.Runtime.CompilerServices;

namespace Pesto.Linux;

/// <summary>
/// What has to hold at a place in the program. It is looked at in out/pesto-checked, which the tests that go on for long or make calls fail
/// run (PESTO_CHECKS, see Pesto.csproj); in out/pesto neither the check nor its arguments are compiled.
/// </summary>
public static class Check
{
    /// <summary>Throws if it does not hold. Nothing catches that: the program ends there and then (SIGABRT), with the place and the text on standard error.</summary>
    /// <param name="holds">The condition, without side effects.</param>
    /// <param name="what">What has to hold, as a constant text.</param>
    /// <exception cref="CheckFailedException">It does not hold.</exception>
    [Conditional("PESTO_CHECKS")]
    public static void That(bool holds, string what, [CallerFilePath] string file = "", [CallerLineNumber] int line = 0)
    {
        if (!holds)
            Fail(what, file, line);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    static void Fail(string what, string file, int line) => throw new CheckFailedException($"{file}:{line}: {what}");
}

/// <summary>A mistake in the program: see <see cref="Check"/>.</summary>
public sealed class CheckFailedException(string message) : Exception(message);
