using System.IO.MemoryMappedFiles;
using System.Runtime.InteropServices;
using Mono.Unix.Native;
using Pesto.Tests.Harness;
using Errno = Pesto.Linux.Errno;

namespace Pesto.Tests.Faults;

/// <summary>
/// What stands between a forwarder and the C library: has calls fail, or calls of the test's choice made, in the forwarder's
/// own process and while it runs. Both sides have the plan mapped (preload.c has the other half).
/// </summary>
sealed unsafe class Preload : IDisposable
{
    static readonly Lazy<TempFolder> Built = new(Build);

    readonly TempFolder _folder = new();
    readonly MemoryMappedFile _file;
    readonly MemoryMappedViewAccessor _view;
    readonly Plan* _plan;

    public Preload()
    {
        string path = _folder["plan"];
        File.WriteAllBytes(path, new byte[sizeof(Plan)]);
        Syscall.chmod(path, NativeConvert.FromOctalPermissionString("666"));
        _file = MemoryMappedFile.CreateFromFile(path, FileMode.Open, null, sizeof(Plan));
        _view = _file.CreateViewAccessor();
        byte* mapped = null;
        _view.SafeMemoryMappedViewHandle.AcquirePointer(ref mapped);
        _plan = (Plan*)mapped;
    }

    /// <summary>The command that runs another with this in between.</summary>
    public string[] Before => ["env", $"LD_PRELOAD={Built.Value["preload.so"]}", $"PESTO_FAULTS={_folder["plan"]}"];

    /// <summary>Has calls of a function fail from now on: after so many that succeed, so many times, on descriptors from the lowest on.</summary>
    public void Fail(string function, int after, int times, Errno error, int lowest)
    {
        Stop();
        Span<byte> name = new(_plan->Function, 32);
        name.Clear();
        System.Text.Encoding.ASCII.GetBytes(function, name);
        _plan->After = after;
        _plan->Times = times;
        _plan->Error = (int)error;
        _plan->Lowest = lowest;
        _plan->Failed = 0;
        Interlocked.Exchange(ref _plan->Armed, 1);
    }

    /// <summary>How many calls have failed so far.</summary>
    public int Failed => Volatile.Read(ref _plan->Failed);

    /// <summary>Has sockets of a family and protocol, by the kernel's numbers, not be had, from now on.</summary>
    public void FailSockets(int family, int protocol, Errno error)
    {
        _plan->Protocol = protocol;
        _plan->SocketError = (int)error;
        Interlocked.Exchange(ref _plan->Family, family);
    }

    /// <summary>Has every clock jump, from where it is really, so many seconds ahead.</summary>
    public void SetClocksAhead(long seconds) => Interlocked.Exchange(ref _plan->Jump, seconds);

    /// <summary>Has this much time pass at once for a forwarder: no test sits through a time-out that is the forwarder's own.</summary>
    public void Pass(BackgroundProcess forwarder, long seconds)
    {
        Interlocked.Add(ref _plan->Jump, seconds);
        // Wakes it, so that it looks at the clock again.
        forwarder.Signal(Signum.SIGUSR1);
    }

    /// <summary>Ends it, and tells how many calls have failed.</summary>
    public int Stop()
    {
        Interlocked.Exchange(ref _plan->Armed, 0);
        return _plan->Failed;
    }

    /// <summary>Has the forwarder's loop make a system call, whose arguments may be a text once; null if that was its end, else the result or a negative errno.</summary>
    public long? Call(BackgroundProcess forwarder, int number, string text = "", params long[] arguments) =>
        Call(forwarder, number, 1, out _, text, arguments);

    /// <param name="repeat">How often.</param>
    /// <param name="nanoseconds">How long it took, all in all.</param>
    public long? Call(BackgroundProcess forwarder, int number, int repeat, out long nanoseconds, string text = "", params long[] arguments) =>
        // The signal wakes it, so that it comes to wait again.
        Call(forwarder, () => forwarder.Signal(Signum.SIGUSR1), number, repeat, out nanoseconds, text, arguments);

    /// <summary>The same for a client, which something of the test's wakes.</summary>
    public long? Call(BackgroundProcess client, Action wake, int number, params long[] arguments) =>
        Call(client, wake, number, 1, out _, "", arguments);

    long? Call(BackgroundProcess process, Action wake, int number, int repeat, out long nanoseconds, string text, long[] arguments)
    {
        Span<byte> copy = new(_plan->Text, 256);
        copy.Clear();
        System.Text.Encoding.UTF8.GetBytes(text, copy);
        _plan->Number = number;
        _plan->Repeat = repeat;
        for (int i = 0; i < 3; i++)
            _plan->Arguments[i] = i < arguments.Length ? arguments[i] : 0;
        Interlocked.Exchange(ref _plan->Request, 1);
        wake();
        Eventually.True(() => process.HasEnded || Volatile.Read(ref _plan->Request) == 0, $"system call {number} is made");
        nanoseconds = _plan->Nanoseconds;
        return process.HasEnded ? null : _plan->Result;
    }

    public void Dispose()
    {
        _view.SafeMemoryMappedViewHandle.ReleasePointer();
        _view.Dispose();
        _file.Dispose();
        _folder.Dispose();
    }

    static TempFolder Build()
    {
        TempFolder to = new();
        AppDomain.CurrentDomain.ProcessExit += (_, _) => to.Dispose();
        new Command("gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", to["preload.so"], Path.Combine(Programs.Sources, "Faults/preload.c")).RunOrFail();
        return to;
    }

    [StructLayout(LayoutKind.Sequential)]
    struct Plan
    {
        public int Armed, After, Times, Error, Lowest, Failed, Request, Repeat;
        public long Number;
        public fixed long Arguments[3];
        public long Result, Nanoseconds, Jump;
        public fixed byte Function[32];
        public fixed byte Text[256];
        public int Family, Protocol, SocketError;
    }
}
