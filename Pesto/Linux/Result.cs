using System.Runtime.CompilerServices;

namespace Pesto.Linux;

/// <summary>
/// What a system call returned: a value (0 or more), or an errno. A caller that ignores a failure says so in its code (<c>_ = … .Ok</c>).
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

    /// <summary>The value, or an exception: for calls at the start, whose failure ends the program, and for those that can't fail.</summary>
    /// <param name="operation">The operation and its object, as the message names them.</param>
    public int OrThrow(string operation) => Ok ? Value : throw new LinuxException(operation, Error);
}

/// <summary>A system call whose failure ends what the program was asked to do.</summary>
public sealed class LinuxException(string operation, Errno error) : Exception($"{operation}: {error.Text()}")
{
    public Errno Error { get; } = error;
}
