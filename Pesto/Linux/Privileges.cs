namespace Pesto.Linux;

/// <summary>The capabilities(7) that the program has a use for, as bits of their numbers.</summary>
[Flags]
public enum Capability : ulong
{
    None = 0,

    /// <summary>CAP_DAC_OVERRIDE: write to any folder.</summary>
    DacOverride = 1ul << 1,

    /// <summary>CAP_FOWNER: remove others' files from a folder where each may only remove his own.</summary>
    Fowner = 1ul << 3,

    /// <summary>CAP_NET_BIND_SERVICE: listen on ports below 1024.</summary>
    NetBindService = 1ul << 10,

    /// <summary>CAP_NET_ADMIN: rules, routes and filters of a network namespace, and, before Linux 5.17, marks of sockets.</summary>
    NetAdmin = 1ul << 12,

    /// <summary>CAP_NET_RAW: take a socket off the interface that it is bound to; bind a socket to another host's address and mark what it sends.</summary>
    NetRaw = 1ul << 13,
}

/// <summary>Giving up users, groups and capabilities. A thread can change its own capabilities only, so each thread has to call this.</summary>
public static unsafe class Privileges
{
    const int SetDumpable = 4, SetKeepCapabilities = 8, NoNewPrivileges = 38, Ambient = 47;
    const int AmbientRaise = 2;
    const uint Version3 = 0x20080522;

    /// <summary>no_new_privs: set-user-id bits and capabilities of files have no effect on what this thread executes.</summary>
    public static void SetNoNewPrivileges() => _ = Libc.prctl(NoNewPrivileges, 1, 0, 0, 0);

    /// <summary>Not dumpable: no core dump, and tracing this process or reading its memory takes CAP_SYS_PTRACE.</summary>
    public static void SetNotDumpable() => _ = Libc.prctl(SetDumpable, 0, 0, 0, 0);

    /// <summary>Leaves the calling thread those of its permitted capabilities that are named, in force, and no others.</summary>
    /// <param name="overExecution">Make them ambient: a program that is executed has them too.</param>
    public static void Keep(Capability wanted, bool overExecution = false)
    {
        // struct __user_cap_header_struct: version, thread (0: this). Then effective, permitted and inheritable ones, low words first.
        uint* header = stackalloc uint[2] { Version3, 0 };
        uint* sets = stackalloc uint[6];
        Result.Of(Libc.syscall(SystemCall.Capget.Number, (nint)header, (nint)sets, 0)).OrThrow("looking at capabilities");
        uint kept = sets[1] & (uint)wanted;
        sets[0] = sets[1] = kept;
        sets[2] = overExecution ? kept : 0;
        sets[3] = sets[4] = sets[5] = 0;
        Result.Of(Libc.syscall(SystemCall.Capset.Number, (nint)header, (nint)sets, 0)).OrThrow("giving up capabilities");
        for (int i = 0; overExecution && i < 32; i++)
        {
            if ((kept >> i & 1) != 0)
                _ = Libc.prctl(Ambient, AmbientRaise, i, 0, 0);
        }
    }

    /// <summary>
    /// Has the calling thread, and those that it starts, keep its permitted capabilities when the process changes from user 0 to another. They
    /// stop to be effective; <see cref="Keep"/> makes them so again.
    /// </summary>
    public static void KeepCapabilitiesOnSetuid() => _ = Libc.prctl(SetKeepCapabilities, 1, 0, 0, 0);

    /// <summary>Changes all user and group ids of this process, in all threads, and drops supplementary groups. EPERM: no CAP_SETUID or CAP_SETGID.</summary>
    public static Result Become(Identity identity)
    {
        Result done = Result.Of(Libc.setgroups(0, null));
        if (done.Ok)
            done = Result.Of(Libc.setgid(identity.Group));
        return done.Ok ? Result.Of(Libc.setuid(identity.User)) : done;
    }
}
