namespace Pesto.Linux;

/// <summary>
/// The system calls that each role makes once it is at work: found by tracing the tests, then checked against the sources, and ordered by
/// how often they are made.
/// </summary>
public static class AllowedCalls
{
    const uint Unix = 1, V4 = 2, V6 = 10;
    const uint Stream = 1, Datagram = 2, KindOfSocket = 0xf;
    const uint SetPipeSize = 1031, GetPipeSize = 1032;
    const uint Executable = 4, ReadWriteFlags = 3, CreateFlag = 0x40, TruncateFlag = 0x200;
    const uint GetLock = 36, SetLock = 37;
    const uint InterfaceIndex = 0x8933, TerminalSettings = 0x5401;

    /// <summary>Allows the forwarder what carries bytes and opens sockets.</summary>
    /// <param name="removesFiles">It has a control socket or a pid file to remove at the end.</param>
    public static Result ForForwarder(bool removesFiles)
    {
        SystemCallFilter filter = new();
        filter.Allow(
            SystemCall.EpollWait, SystemCall.EpollPwait, SystemCall.Recvfrom, SystemCall.Sendto, SystemCall.Splice, SystemCall.Recvmmsg,
            SystemCall.Sendmmsg, SystemCall.Sendmsg, SystemCall.Recvmsg, SystemCall.Close, SystemCall.Accept4, SystemCall.Connect, SystemCall.EpollCtl,
            SystemCall.Setsockopt, SystemCall.Getsockopt, SystemCall.Shutdown, SystemCall.Getsockname, SystemCall.Getpeername,
            SystemCall.Read, SystemCall.Write, SystemCall.Pread64, SystemCall.Bind, SystemCall.Listen, SystemCall.Pipe2, SystemCall.Statx,
            SystemCall.Poll, SystemCall.Ppoll);
        // No other command: F_SETOWN, F_SETSIG and O_ASYNC would have the kernel send any signal to any process of this user.
        filter.AllowOrFail(Errno.EPERM, SystemCall.Fcntl, new SystemCallFilter.Argument(1, uint.MaxValue, SetPipeSize, GetPipeSize));
        // No UNIX sockets: services that listen on them (systemd, D-Bus, Docker) start programs for their clients.
        AllowSockets(filter, V6, V4);
        filter.AllowOrFail(Errno.EPERM, SystemCall.Ioctl, new SystemCallFilter.Argument(1, uint.MaxValue, InterfaceIndex));
        if (removesFiles)
            filter.Allow(SystemCall.Unlink, SystemCall.Unlinkat);
        filter.Fail(Errno.EACCES, SystemCall.Open, SystemCall.Openat, SystemCall.Openat2, SystemCall.Creat);
        AllowRuntime(filter);
        KillIntruders(filter);
        return filter.Install();
    }

    /// <summary>Allows the client what talks to a server and reads files; none can be opened for writing.</summary>
    public static Result ForClient()
    {
        SystemCallFilter filter = new();
        filter.Allow(
            SystemCall.Poll, SystemCall.Ppoll, SystemCall.Recvfrom, SystemCall.Sendto, SystemCall.Read, SystemCall.Write, SystemCall.Close,
            SystemCall.Connect, SystemCall.Setsockopt, SystemCall.Getsockopt, SystemCall.Shutdown, SystemCall.Bind);
        AllowSockets(filter, V6, V4, Unix);
        filter.AllowOrFail(Errno.EPERM, SystemCall.Ioctl, new SystemCallFilter.Argument(1, uint.MaxValue, TerminalSettings));
        filter.AllowOrFail(Errno.EACCES, SystemCall.Openat, new SystemCallFilter.Argument(2, ReadWriteFlags | CreateFlag | TruncateFlag, 0));
        filter.AllowOrFail(Errno.EACCES, SystemCall.Open, new SystemCallFilter.Argument(1, ReadWriteFlags | CreateFlag | TruncateFlag, 0));
        filter.Fail(Errno.EACCES, SystemCall.Openat2, SystemCall.Creat);
        AllowRuntime(filter);
        KillIntruders(filter);
        return filter.Install();
    }

    /// <summary>Allows the janitor to wait on a pipe, look at files and remove them.</summary>
    /// <param name="undoes">It also takes back what was set up over netlink and by files of /proc/sys, all of which are open.</param>
    internal static SystemCallFilter ForJanitor(bool undoes)
    {
        SystemCallFilter filter = new();
        filter.Allow(
            SystemCall.Read, SystemCall.Statx, SystemCall.Newfstatat, SystemCall.Unlink, SystemCall.Unlinkat, SystemCall.Exit, SystemCall.ExitGroup,
            SystemCall.SignalReturn, SystemCall.RestartSyscall, SystemCall.Futex);
        if (undoes)
        {
            filter.Allow(SystemCall.Sendto, SystemCall.Recvfrom, SystemCall.Pwrite64, SystemCall.Poll, SystemCall.Ppoll);
            filter.AllowOrFail(Errno.EPERM, SystemCall.Fcntl, new SystemCallFilter.Argument(1, uint.MaxValue, GetLock, SetLock));
        }

        KillIntruders(filter);
        return filter;
    }

    /// <summary>
    /// Stream and datagram sockets of their family's default protocol: TCP and UDP. MPTCP, SCTP, UDP-Lite and ICMP are other protocols of the
    /// same kinds, and each is kernel code within reach that nothing here needs.
    /// </summary>
    static void AllowSockets(SystemCallFilter filter, params uint[] families) => filter.AllowIf(
        SystemCall.Socket,
        new SystemCallFilter.Argument(0, uint.MaxValue, families),
        new SystemCallFilter.Argument(1, KindOfSocket, Stream, Datagram),
        new SystemCallFilter.Argument(2, uint.MaxValue, 0));

    /// <summary>What the C library and the .NET runtime call by themselves: memory, locks, time. No memory to execute, and no new thread.</summary>
    static void AllowRuntime(SystemCallFilter filter)
    {
        filter.Allow(
            SystemCall.Futex, SystemCall.ClockGettime, SystemCall.SchedYield, SystemCall.Madvise, SystemCall.Munmap, SystemCall.Mremap, SystemCall.Brk,
            SystemCall.Membarrier, SystemCall.Getpid, SystemCall.Gettid, SystemCall.SignalMask, SystemCall.SignalReturn, SystemCall.SignalAction,
            SystemCall.RestartSyscall, SystemCall.Rseq, SystemCall.ClockNanosleep, SystemCall.Nanosleep, SystemCall.Gettimeofday, SystemCall.Time,
            SystemCall.ClockGetres, SystemCall.Getrandom, SystemCall.Getcpu, SystemCall.SchedGetaffinity, SystemCall.GetMempolicy, SystemCall.Sysinfo,
            SystemCall.Getrusage, SystemCall.Getuid, SystemCall.Geteuid, SystemCall.Getgid, SystemCall.Getegid, SystemCall.Writev, SystemCall.Lseek,
            SystemCall.Fstat, SystemCall.Newfstatat, SystemCall.Exit, SystemCall.ExitGroup);
        // prlimit64 without a pointer to new limits reads them.
        filter.AllowOrFail(Errno.EPERM, SystemCall.Prlimit64, new SystemCallFilter.Argument(2, uint.MaxValue, 0), new SystemCallFilter.Argument(2, uint.MaxValue, 0) { IsHighHalf = true });
        filter.AllowIf(SystemCall.Mmap, new SystemCallFilter.Argument(2, Executable, 0));
        filter.AllowIf(SystemCall.Mprotect, new SystemCallFilter.Argument(2, Executable, 0));
        filter.AllowIf(SystemCall.Tgkill, new SystemCallFilter.Argument(0, uint.MaxValue, (uint)Processes.Id));
    }

    static void KillIntruders(SystemCallFilter filter) => filter.Kill(
        SystemCall.Execve, SystemCall.Execveat, SystemCall.Fork, SystemCall.Vfork, SystemCall.Clone, SystemCall.Clone3,
        SystemCall.Ptrace, SystemCall.ProcessVmReadv, SystemCall.ProcessVmWritev, SystemCall.PidfdGetfd,
        SystemCall.Setns, SystemCall.Unshare, SystemCall.Mount, SystemCall.Umount2, SystemCall.PivotRoot, SystemCall.Chroot, SystemCall.MoveMount,
        SystemCall.OpenTree, SystemCall.Fsopen, SystemCall.Fsmount, SystemCall.MountSetattr, SystemCall.OpenByHandleAt,
        SystemCall.InitModule, SystemCall.FinitModule, SystemCall.DeleteModule, SystemCall.KexecLoad, SystemCall.KexecFileLoad, SystemCall.Reboot,
        SystemCall.Bpf, SystemCall.PerfEventOpen, SystemCall.Userfaultfd, SystemCall.IoUringSetup, SystemCall.Personality,
        SystemCall.AddKey, SystemCall.RequestKey, SystemCall.Keyctl,
        SystemCall.Setuid, SystemCall.Setgid, SystemCall.Setreuid, SystemCall.Setregid, SystemCall.Setresuid, SystemCall.Setresgid, SystemCall.Setgroups,
        SystemCall.Capset);
}
