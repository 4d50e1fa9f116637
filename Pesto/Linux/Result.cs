using System.Runtime.CompilerServices;

namespace Pesto.Linux;

/// <summary>
/// What a system call gave: a value (0 or more), or the errno that says why there is none. Returned by value
/// instead of an exception or a thread-wide error, so that a caller who ignores a failure can be seen doing it.
/// </summary>
public readonly struct Result
{
    readonly nint _raw;

    Result(nint raw) => _raw = raw;

    /// <summary>Wraps what a libc function returned; a negative value means that errno holds the reason.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Result Of(nint returned) => returned >= 0 ? new(returned) : Failed();

    [MethodImpl(MethodImplOptions.NoInlining)]
    static Result Failed() => new(-(nint)Libc.Errno);

    public static Result From(Errno error) => new(-(nint)(int)error);

    public static Result From(int value) => new(value);

    public bool Ok => _raw >= 0;

    public int Value => (int)_raw;

    public long LongValue => _raw;

    public Errno Error => _raw < 0 ? (Errno)(-_raw) : Errno.None;

    public bool Is(Errno error) => _raw == -(nint)(int)error;

    /// <summary>For calls that fail only if the program is wrong, or at start-up, where the failure ends it.</summary>
    /// <param name="operation">What was being done, with its object, as the message will name it.</param>
    public int OrThrow(string operation) => Ok ? Value : throw new LinuxException(operation, Error);
}

/// <summary>An operation on the system that failed and ends what the program was asked to do.</summary>
public sealed class LinuxException(string operation, Errno error) : Exception($"{operation}: {error.Text()}")
{
    public Errno Error { get; } = error;
}
