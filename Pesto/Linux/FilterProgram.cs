using System.Runtime.InteropServices;

namespace Pesto.Linux;

/// <summary>An instruction of classic BPF (struct sock_filter).</summary>
[StructLayout(LayoutKind.Sequential)]
readonly struct FilterStep
{
    const ushort LoadWordAt = 0x20, AndWith = 0x54, JumpIfEqual = 0x15, JumpIfAtLeast = 0x35, End = 0x06;

    readonly ushort _code;
    readonly byte _ifTrue;
    readonly byte _ifFalse;
    readonly uint _operand;

    FilterStep(ushort code, uint operand, int ifTrue = 0, int ifFalse = 0)
    {
        _code = code;
        _operand = operand;
        _ifTrue = checked((byte)ifTrue);
        _ifFalse = checked((byte)ifFalse);
    }

    public static FilterStep LoadWord(uint offset) => new(LoadWordAt, offset);

    public static FilterStep And(uint mask) => new(AndWith, mask);

    /// <summary>Skips so many instructions if the accumulator has the value, else so many others.</summary>
    public static FilterStep IfEqual(uint value, int skip, int otherwiseSkip) => new(JumpIfEqual, value, skip, otherwiseSkip);

    public static FilterStep IfAtLeast(uint value, int skip, int otherwiseSkip) => new(JumpIfAtLeast, value, skip, otherwiseSkip);

    public static FilterStep Return(uint value) => new(End, value);
}

/// <summary>A program of classic BPF (struct sock_fprog).</summary>
[StructLayout(LayoutKind.Sequential)]
unsafe struct FilterProgram
{
    public ushort Length;
    public FilterStep* Steps;
}
