using Pesto.Tests.Harness;

namespace Pesto.Tests.Interop;

/// <summary>Everything that one does with a forwarder in its life, to be done with two that must not differ.</summary>
static class Session
{
    /// <summary>The options of one invocation of the client after the other, each from where the one before left off.</summary>
    public static readonly string[][] Steps =
    [
        [],
        ["-t", "8080"],
        ["-A", "-t", "8081:81"],
        ["-A", "-u", "5353:53"],
        ["-s", "-A", "-t", "127.0.0.1/9000-9010,~9005"],
        ["-A", "-t", "::1/7000-7003:17000-17003"],
        ["-A", "-t", "%lo/7100", "-u", "127.0.0.1%lo/7200"],
        ["-s", "-T", "5432"],
        ["-A", "-T", "5433", "-U", "53"],
        ["-s", "-D", "-t", "8081:81", "-A", "-t", "8082:82"],
        ["-A", "-t", "8080"], // there already
        ["-D", "-t", "4000"], // not there
        ["-A", "-t", "no-port"],
        ["-A", "-t", "0"],
        ["-A", "-t", "70000"],
        ["-A", "-t", "90-80"],
        ["-A", "-t", "9020", "-u", "9020-9030", "-T", "9020", "-U", "9020"],
        ["-s", "-C", "SPLICE"],
        ["-t", "none"], // refused: there are some
        ["-C", "HOST", "-t", "none"],
        ["-t", "1000-1200:2000-2200", "-u", "1000-1200:2000-2200"],
        ["-s", "-C", "HOST", "-C", "SPLICE"],
        ["-t", "2000-2010,auto"],
        ["-u", "3000,3002,3004", "-T", "4000", "-U", "4000"],
        ["-s", "-C", "HOST", "-C", "SPLICE", "-u", "127.0.0.2/6000"],
        [],
    ];

    /// <summary>Takes every step with both and compares what each client says, to the byte, and what either client then finds.</summary>
    public static void Compare(RunningForwarder one, Func<RunningForwarder, string[], Finished> oneClient, RunningForwarder other, Func<RunningForwarder, string[], Finished> otherClient)
    {
        foreach (string[] step in Steps)
        {
            string options = string.Join(' ', step);
            Assert.Equal(Said(options, other, otherClient(other, step)), Said(options, one, oneClient(one, step)));
            // The real client does not wait until its update is in force.
            string expected = Said(options, other, other.RealPesto());
            Eventually.Equal(expected, () => Said(options, one, one.RealPesto()));
            Eventually.Equal(expected, () => Said(options, other, other.RealPesto()));
            Assert.Equal(expected, Said(options, one, one.Pesto()));
        }
    }

    /// <summary>What a client did, without the words of its errors and the name of its socket, the only things that may differ.</summary>
    static string Said(string options, RunningForwarder to, Finished finished) => string.Join(
        '\n',
        $"pesto {options}",
        $"exit status {finished.ExitStatus}, {(finished.Errors.Length > 0 ? "errors" : "no errors")}",
        finished.Output.Replace(to.Control, "CONTROL"));
}
