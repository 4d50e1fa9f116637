namespace Pesto.Linux;

/// <summary>What root may do, in parts (capabilities(7)): those that the program may have a use for.</summary>
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

    /// <summary>CAP_NET_RAW: take a socket off the interface that it is bound to.</summary>
    NetRaw = 1ul << 13,
}

/// <summary>Gives up what this process could do and has no need for. Linux keeps capabilities by thread: each has to give them up for itself.</summary>
public static unsafe class Privileges
{
    const int SetDumpable = 4, SetKeepCapabilities = 8, NoNewPrivileges = 38, Ambient = 47;
    const int AmbientRaise = 2;
    const uint Version3 = 0x20080522;

    /// <summary>Has what is executed from here never get more than this thread has: no set-user-id program, no file with capabilities.</summary>
    public static void SetNoNewPrivileges() => _ = Libc.prctl(NoNewPrivileges, 1, 0, 0, 0);

    /// <summary>Nobody but root may look into this process's memory from now on, nor does it leave a core dump.</summary>
    public static void SetNotDumpable() => _ = Libc.prctl(SetDumpable, 0, 0, 0, 0);

    /// <summary>Leaves the calling thread those of the privileges it has that are named, and no other.</summary>
    /// <param name="overExecution">A program that is executed has them too.</param>
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
    /// Has the calling thread, and those that it starts, keep its capabilities when the process changes to another user. They are not in force
    /// then until <see cref="Keep"/>.
    /// </summary>
    public static void KeepCapabilitiesOnSetuid() => _ = Libc.prctl(SetKeepCapabilities, 1, 0, 0, 0);

    /// <summary>Gives up this process's user and groups for others, for good and in all threads. Fails with EPERM for who is not root.</summary>
    public static Result Become(Identity identity)
    {
        Result done = Result.Of(Libc.setgroups(0, null));
        if (done.Ok)
            done = Result.Of(Libc.setgid(identity.Group));
        return done.Ok ? Result.Of(Libc.setuid(identity.User)) : done;
    }
}
