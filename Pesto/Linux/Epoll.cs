using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.X86;

namespace Pesto.Linux;

[Flags]
public enum Events : uint
{
    None = 0,
    In = 1,
    Priority = 2,
    Out = 4,
    Error = 8,
    HangUp = 0x10,
    ReadHangUp = 0x2000,
    Edge = 1u << 31,
}

/// <summary>An epoll descriptor and the events that it returned last, in native memory.</summary>
public sealed unsafe class Epoll
{
    // struct epoll_event is packed on x86 only: 12 bytes there, 16 elsewhere.
    static int EventSize => X86Base.IsSupported ? 12 : 16;

    static int DataOffset => EventSize - 8;

    const int ControlAdd = 1, ControlRemove = 2, ControlModify = 3;

    readonly int _fd;
    readonly int _most;
    readonly byte* _events;

    /// <param name="most">The most events that one wait returns.</param>
    public Epoll(int most)
    {
        _fd = Result.Of(Libc.epoll_create1(0x80000)).OrThrow("creating an epoll descriptor");
        _most = most;
        _events = (byte*)NativeMemory.Alloc((nuint)(most * EventSize));
    }

    /// <summary>Waits at most so many milliseconds (-1: for ever) and returns how many events there are.</summary>
    public Result Wait(int milliseconds) => Result.Of(Libc.epoll_wait(_fd, _events, _most, milliseconds));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public Events EventsAt(int index) => *(Events*)(_events + (index * EventSize));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public ulong DataAt(int index) => Unsafe.ReadUnaligned<ulong>(_events + (index * EventSize) + DataOffset);

    /// <summary>Fails with ENOMEM, or with ENOSPC at the limit fs.epoll.max_user_watches. EEXIST, ENOENT and EBADF are mistakes of the caller's.</summary>
    public Result Add(int descriptor, Events interest, ulong data) => Control(ControlAdd, descriptor, interest, data);

    public Result Modify(int descriptor, Events interest, ulong data) => Control(ControlModify, descriptor, interest, data);

    public Result Remove(int descriptor) => Control(ControlRemove, descriptor, Events.None, 0);

    Result Control(int operation, int descriptor, Events interest, ulong data)
    {
        byte* e = stackalloc byte[16];
        *(Events*)e = interest;
        Unsafe.WriteUnaligned(e + DataOffset, data);
        return Result.Of(Libc.epoll_ctl(_fd, operation, descriptor, e));
    }
}
