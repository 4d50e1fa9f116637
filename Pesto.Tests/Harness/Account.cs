namespace Pesto.Tests.Harness;

/// <summary>A user to run a command as. Tests run as root, or as root of a user namespace (`./build.sh test` sees to it).</summary>
sealed record Account(uint Id)
{
    /// <summary>A user without any privilege: no capability, no group, no entry in /etc/passwd.</summary>
    public static readonly Account Ordinary = new(61234);

    /// <summary>The command that runs another as this user.</summary>
    public string[] Become => ["setpriv", $"--reuid={Id}", $"--regid={Id}", "--clear-groups", "--inh-caps=-all", "--"];

    /// <summary>Only root proper can become another user; in an ordinary user's own namespace there is nobody else to become.</summary>
    public static void NeedOrdinary() => Assert.SkipUnless(OthersAreMapped, "only root can run a command as another user");

    static bool OthersAreMapped => File.ReadLines("/proc/self/uid_map")
        .Select(line => line.Split(' ', StringSplitOptions.RemoveEmptyEntries))
        .Any(map => uint.Parse(map[0]) <= Ordinary.Id && Ordinary.Id - uint.Parse(map[0]) < uint.Parse(map[2]));
}
