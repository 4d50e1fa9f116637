using System.Runtime.InteropServices;

namespace Pesto.Linux;

/// <summary>
/// Which system calls this process may make from now on, in all of its threads and for good (seccomp(2)). The filter compares numbers in
/// the order in which they are given here, so what is called most comes first; since Linux 5.11 the kernel has a bitmap of the calls that are
/// allowed whatever their arguments.
/// A call that is not named fails with ENOSYS, as on a kernel that does not have it: the runtime and the C library have another way then, so
/// that a newer version of theirs that calls something new does not end the program.
/// </summary>
sealed unsafe class SystemCallFilter
{
    const uint Allowed = 0x7fff0000, Killed = 0x80000000, Fails = 0x00050000;
    const uint X64 = 0xc000003e, Arm64 = 0xc00000b7;

    // struct seccomp_data: the number, the kind of machine, the caller's address, six arguments of 64 bits.
    const uint NumberAt = 0, MachineAt = 4, ArgumentsAt = 16;

    readonly List<FilterStep> _steps = new(512);

    public SystemCallFilter()
    {
        bool isArm = RuntimeInformation.ProcessArchitecture == Architecture.Arm64;
        _steps.AddRange(
        [
            FilterStep.LoadWord(MachineAt),
            FilterStep.IfEqual(isArm ? Arm64 : X64, 1, 0),
            FilterStep.Return(Killed),
            FilterStep.LoadWord(NumberAt),
        ]);
        // x32: the same architecture in seccomp_data, with numbers of its own that have this bit. They would pass by this list.
        const uint ShortPointers = 0x40000000;
        if (!isArm)
            _steps.AddRange([FilterStep.IfAtLeast(ShortPointers, 0, 1), FilterStep.Return(Killed)]);
    }

    public void Allow(params ReadOnlySpan<SystemCall> calls) => Add(calls, Allowed);

    /// <summary>Ends the process (SIGSYS): calls that neither this program, its runtime nor the C library makes.</summary>
    public void Kill(params ReadOnlySpan<SystemCall> calls) => Add(calls, Killed);

    public void Fail(Errno with, params ReadOnlySpan<SystemCall> calls) => Add(calls, Fails | (uint)with);

    /// <summary>Allows a call if its arguments are as they should be, and otherwise ends the process.</summary>
    public void AllowIf(SystemCall call, params ReadOnlySpan<Argument> arguments) => AddChecked(call, Killed, arguments);

    /// <summary>Allows a call if its arguments are as they should be; otherwise it fails.</summary>
    public void AllowOrFail(Errno with, SystemCall call, params ReadOnlySpan<Argument> arguments) => AddChecked(call, Fails | (uint)with, arguments);

    void Add(ReadOnlySpan<SystemCall> calls, uint outcome)
    {
        foreach (SystemCall call in calls)
        {
            if (call.Number >= 0)
                _steps.AddRange([FilterStep.IfEqual((uint)call.Number, 0, 1), FilterStep.Return(outcome)]);
        }
    }

    void AddChecked(SystemCall call, uint otherwise, ReadOnlySpan<Argument> arguments)
    {
        if (call.Number < 0)
            return;
        List<FilterStep> check = [];
        foreach (Argument argument in arguments)
        {
            uint at = ArgumentsAt + (8 * (uint)argument.Index) + (argument.IsHighHalf ? 4u : 0);
            check.AddRange([FilterStep.LoadWord(at), FilterStep.And(argument.Mask)]);
            for (int i = 0; i < argument.Values.Length; i++)
                check.Add(FilterStep.IfEqual(argument.Values[i], argument.Values.Length - i, 0));
            check.Add(FilterStep.Return(otherwise));
        }

        check.Add(FilterStep.Return(Allowed));
        _steps.Add(FilterStep.IfEqual((uint)call.Number, 0, check.Count));
        _steps.AddRange(check);
    }

    /// <summary>Puts it in force, in every thread. ENOSYS or EINVAL: the kernel has no filters; ESRCH: a thread could not be included.</summary>
    public Result Install()
    {
        const int SetFilter = 1, AllThreads = 1;
        // On kernels before 5.16, a filter turns on mitigations against speculation in the whole process, unless this flag is given.
        const int LeaveSpeculation = 4;
        _steps.Add(FilterStep.Return(Fails | (uint)Errno.ENOSYS));
        fixed (FilterStep* first = CollectionsMarshal.AsSpan(_steps))
        {
            FilterProgram program = new() { Length = (ushort)_steps.Count, Steps = first };
            Result installed = Result.Of(Libc.syscall(SystemCall.Seccomp.Number, SetFilter, AllThreads | LeaveSpeculation, (nint)(&program)));
            // SECCOMP_FILTER_FLAG_TSYNC: a positive value is the id of a thread that could not be included.
            return installed.Ok && installed.Value > 0 ? Result.From(Errno.ESRCH) : installed;
        }
    }

    /// <summary>The values that an argument, masked, may have.</summary>
    internal readonly record struct Argument(int Index, uint Mask, params uint[] Values)
    {
        /// <summary>Compares the high 32 bits, which matter for pointers only.</summary>
        public bool IsHighHalf { get; init; }
    }
}
