using System.Runtime.InteropServices;
using Pesto.Linux;

namespace Pesto.Bench.Traffic;

/// <summary>A level-triggered epoll set whose events carry a number.</summary>
sealed unsafe class Poller
{
    const int Batch = 512;

    // struct epoll_event is packed on x86-64 only.
    static readonly int EventSize = RuntimeInformation.ProcessArchitecture == Architecture.X64 ? 12 : 16;
    static readonly int DataOffset = EventSize - 8;

    readonly int epoll = Result.Of(Libc.epoll_create1(Kernel.SOCK_CLOEXEC)).OrThrow("epoll_create1");
    readonly byte* events = (byte*)NativeMemory.AllocZeroed(Batch, 16);

    public void Add(int fd, uint wanted, int number) => this.Control(Kernel.EPOLL_CTL_ADD, fd, wanted, number).OrThrow("add to epoll set");

    public void Change(int fd, uint wanted, int number) => this.Control(Kernel.EPOLL_CTL_MOD, fd, wanted, number).OrThrow("change in epoll set");

    Result Control(int operation, int fd, uint wanted, int number)
    {
        byte* e = stackalloc byte[16];
        *(uint*)e = wanted;
        *(long*)(e + DataOffset) = number;
        return Result.Of(Libc.epoll_ctl(this.epoll, operation, fd, e));
    }

    /// <summary>How many events there are; 0 after a time-out or a signal.</summary>
    public int Wait(int milliseconds) => Math.Max(0, Libc.epoll_wait(this.epoll, this.events, Batch, milliseconds));

    public uint Events(int i) => *(uint*)(this.events + (i * EventSize));

    public int Number(int i) => (int)*(long*)(this.events + (i * EventSize) + DataOffset);
}
