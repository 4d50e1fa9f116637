using System.Diagnostics;
using System.Runtime.InteropServices;
using Pesto.Linux;

namespace Pesto.Bench.Compare;

/// <summary>
/// Runs this program once more in network, mount and process namespaces of its own, as root or, for an ordinary user, in a user
/// namespace. Nothing outside is touched, and however the run ends, the kernel ends all that it started and removes what it set up.
/// </summary>
static class Isolation
{
    const string Inside = "PESTO_BENCH_ISOLATED";

    /// <summary>The runtime that runs this program, and the program: the start of a command line for one of its verbs.</summary>
    public static readonly string[] Self =
    [
        Path.GetFullPath(Path.Combine(RuntimeEnvironment.GetRuntimeDirectory(), "../../../dotnet")),
        typeof(Isolation).Assembly.Location,
    ];

    /// <summary>Whether this is not yet the run inside.</summary>
    public static bool IsOuter => Environment.GetEnvironmentVariable(Inside) == null;

    /// <summary>Whether the user outside is root, which some forwarders need.</summary>
    public static bool IsRoot { get; } = Environment.GetEnvironmentVariable(Inside) is string user ? user == "0" : Libc.geteuid() == 0;

    /// <summary>Does the work inside: directly if this is the inner run already, else by starting one with the same arguments.</summary>
    public static int Run(string[] args, Func<int> work)
    {
        if (!IsOuter)
        {
            Topology.SetUp();
            return work();
        }

        foreach (string needed in new[] { "setpriv", "unshare", "nsenter", "ip", "sysctl" })
        {
            if (Tool.Find(needed) == null)
                throw new InvalidOperationException($"{needed} is needed: apt-get install util-linux iproute2 procps");
        }

        string[] user = IsRoot ? [] : ["--user", "--map-root-user"];
        // The shell stays as the first process of its namespace, where it reaps what others leave behind. The last words before
        // it are for a run that is killed: unshare dies with this process, and all others with unshare.
        ProcessStartInfo start = new("setpriv",
        [
            "--pdeathsig", "KILL", "unshare", .. user, "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
            "sh", "-c", "mount -t tmpfs tmpfs /run && \"$@\"; exit $?", "sh", .. Self, .. args,
        ]);
        start.Environment[Inside] = $"{Libc.geteuid()}";
        using Process process = Process.Start(start)!;
        process.WaitForExit();
        return process.ExitCode;
    }
}
