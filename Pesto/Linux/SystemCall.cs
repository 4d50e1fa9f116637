using System.Runtime.InteropServices;

namespace Pesto.Linux;

/// <summary>A system call, by its number on each kind of machine; -1 where there is none of this name.</summary>
readonly struct SystemCall(int onX64, int onArm64)
{
    public int Number => RuntimeInformation.ProcessArchitecture == Architecture.Arm64 ? onArm64 : onX64;

    // Waiting, and bytes
    public static readonly SystemCall EpollWait = new(232, -1);
    public static readonly SystemCall EpollPwait = new(281, 22);
    public static readonly SystemCall EpollCtl = new(233, 21);
    public static readonly SystemCall Poll = new(7, -1);
    public static readonly SystemCall Ppoll = new(271, 73);
    public static readonly SystemCall Read = new(0, 63);
    public static readonly SystemCall Write = new(1, 64);
    public static readonly SystemCall Writev = new(20, 66);
    public static readonly SystemCall Pread64 = new(17, 67);
    public static readonly SystemCall Pwrite64 = new(18, 68);
    public static readonly SystemCall Lseek = new(8, 62);
    public static readonly SystemCall Splice = new(275, 76);
    public static readonly SystemCall Recvfrom = new(45, 207);
    public static readonly SystemCall Sendto = new(44, 206);
    public static readonly SystemCall Recvmsg = new(47, 212);
    public static readonly SystemCall Sendmsg = new(46, 211);
    public static readonly SystemCall Recvmmsg = new(299, 243);
    public static readonly SystemCall Sendmmsg = new(307, 269);

    // Sockets and descriptors
    public static readonly SystemCall Socket = new(41, 198);
    public static readonly SystemCall Bind = new(49, 200);
    public static readonly SystemCall Listen = new(50, 201);
    public static readonly SystemCall Accept = new(43, 202);
    public static readonly SystemCall Accept4 = new(288, 242);
    public static readonly SystemCall Connect = new(42, 203);
    public static readonly SystemCall Shutdown = new(48, 210);
    public static readonly SystemCall Setsockopt = new(54, 208);
    public static readonly SystemCall Getsockopt = new(55, 209);
    public static readonly SystemCall Getsockname = new(51, 204);
    public static readonly SystemCall Getpeername = new(52, 205);
    public static readonly SystemCall Pipe2 = new(293, 59);
    public static readonly SystemCall Fcntl = new(72, 25);
    public static readonly SystemCall Ioctl = new(16, 29);
    public static readonly SystemCall Close = new(3, 57);

    // Files
    public static readonly SystemCall Open = new(2, -1);
    public static readonly SystemCall Openat = new(257, 56);
    public static readonly SystemCall Openat2 = new(437, 437);
    public static readonly SystemCall Creat = new(85, -1);
    public static readonly SystemCall Access = new(21, -1);
    public static readonly SystemCall Faccessat = new(269, 48);
    public static readonly SystemCall Faccessat2 = new(439, 439);
    public static readonly SystemCall Stat = new(4, -1);
    public static readonly SystemCall Lstat = new(6, -1);
    public static readonly SystemCall Fstat = new(5, 80);
    public static readonly SystemCall Newfstatat = new(262, 79);
    public static readonly SystemCall Statx = new(332, 291);
    public static readonly SystemCall Statfs = new(137, 43);
    public static readonly SystemCall Readlink = new(89, -1);
    public static readonly SystemCall Readlinkat = new(267, 78);
    public static readonly SystemCall Getcwd = new(79, 17);
    public static readonly SystemCall Unlink = new(87, -1);
    public static readonly SystemCall Unlinkat = new(263, 35);

    // Memory, time, threads, signals: what the C library and the runtime do of themselves
    public static readonly SystemCall Mmap = new(9, 222);
    public static readonly SystemCall Mprotect = new(10, 226);
    public static readonly SystemCall Munmap = new(11, 215);
    public static readonly SystemCall Mremap = new(25, 216);
    public static readonly SystemCall Madvise = new(28, 233);
    public static readonly SystemCall Brk = new(12, 214);
    public static readonly SystemCall Futex = new(202, 98);
    public static readonly SystemCall Membarrier = new(324, 283);
    public static readonly SystemCall Rseq = new(334, 293);
    public static readonly SystemCall SchedYield = new(24, 124);
    public static readonly SystemCall SchedGetaffinity = new(204, 123);
    public static readonly SystemCall Getcpu = new(309, 168);
    public static readonly SystemCall GetMempolicy = new(239, 236);
    public static readonly SystemCall Sysinfo = new(99, 179);
    public static readonly SystemCall Prlimit64 = new(302, 261);
    public static readonly SystemCall Getrusage = new(98, 165);
    public static readonly SystemCall Getrandom = new(318, 278);
    public static readonly SystemCall ClockGettime = new(228, 113);
    public static readonly SystemCall ClockGetres = new(229, 114);
    public static readonly SystemCall ClockNanosleep = new(230, 115);
    public static readonly SystemCall Nanosleep = new(35, 101);
    public static readonly SystemCall Gettimeofday = new(96, 169);
    public static readonly SystemCall Time = new(201, -1);
    public static readonly SystemCall Getpid = new(39, 172);
    public static readonly SystemCall Gettid = new(186, 178);
    public static readonly SystemCall Getuid = new(102, 174);
    public static readonly SystemCall Geteuid = new(107, 175);
    public static readonly SystemCall Getgid = new(104, 176);
    public static readonly SystemCall Getegid = new(108, 177);
    public static readonly SystemCall SignalAction = new(13, 134);
    public static readonly SystemCall SignalMask = new(14, 135);
    public static readonly SystemCall SignalReturn = new(15, 139);
    public static readonly SystemCall RestartSyscall = new(219, 128);
    public static readonly SystemCall Tgkill = new(234, 131);
    public static readonly SystemCall Exit = new(60, 93);
    public static readonly SystemCall ExitGroup = new(231, 94);

    // What ends the process
    public static readonly SystemCall Execve = new(59, 221);
    public static readonly SystemCall Execveat = new(322, 281);
    public static readonly SystemCall Fork = new(57, -1);
    public static readonly SystemCall Vfork = new(58, -1);
    public static readonly SystemCall Clone = new(56, 220);
    public static readonly SystemCall Clone3 = new(435, 435);
    public static readonly SystemCall Ptrace = new(101, 117);
    public static readonly SystemCall ProcessVmReadv = new(310, 270);
    public static readonly SystemCall ProcessVmWritev = new(311, 271);
    public static readonly SystemCall PidfdGetfd = new(438, 438);
    public static readonly SystemCall Setns = new(308, 268);
    public static readonly SystemCall Unshare = new(272, 97);
    public static readonly SystemCall Mount = new(165, 40);
    public static readonly SystemCall Umount2 = new(166, 39);
    public static readonly SystemCall PivotRoot = new(155, 41);
    public static readonly SystemCall Chroot = new(161, 51);
    public static readonly SystemCall MoveMount = new(429, 429);
    public static readonly SystemCall OpenTree = new(428, 428);
    public static readonly SystemCall Fsopen = new(430, 430);
    public static readonly SystemCall Fsmount = new(432, 432);
    public static readonly SystemCall MountSetattr = new(442, 442);
    public static readonly SystemCall InitModule = new(175, 105);
    public static readonly SystemCall FinitModule = new(313, 273);
    public static readonly SystemCall DeleteModule = new(176, 106);
    public static readonly SystemCall KexecLoad = new(246, 104);
    public static readonly SystemCall KexecFileLoad = new(320, 294);
    public static readonly SystemCall Bpf = new(321, 280);
    public static readonly SystemCall PerfEventOpen = new(298, 241);
    public static readonly SystemCall Userfaultfd = new(323, 282);
    public static readonly SystemCall IoUringSetup = new(425, 425);
    public static readonly SystemCall AddKey = new(248, 217);
    public static readonly SystemCall RequestKey = new(249, 218);
    public static readonly SystemCall Keyctl = new(250, 219);
    public static readonly SystemCall Setuid = new(105, 146);
    public static readonly SystemCall Setgid = new(106, 144);
    public static readonly SystemCall Setreuid = new(113, 145);
    public static readonly SystemCall Setregid = new(114, 143);
    public static readonly SystemCall Setresuid = new(117, 147);
    public static readonly SystemCall Setresgid = new(119, 149);
    public static readonly SystemCall Setgroups = new(116, 159);
    public static readonly SystemCall Capset = new(126, 91);
    public static readonly SystemCall OpenByHandleAt = new(304, 265);
    public static readonly SystemCall Personality = new(135, 92);
    public static readonly SystemCall Reboot = new(169, 142);

    // What gives privileges up
    public static readonly SystemCall Seccomp = new(317, 277);
    public static readonly SystemCall LandlockCreateRuleset = new(444, 444);
    public static readonly SystemCall LandlockAddRule = new(445, 445);
    public static readonly SystemCall LandlockRestrictSelf = new(446, 446);
    public static readonly SystemCall CloseRange = new(436, 436);
    public static readonly SystemCall Capget = new(125, 90);
    public static readonly SystemCall PidfdOpen = new(434, 434);
}
