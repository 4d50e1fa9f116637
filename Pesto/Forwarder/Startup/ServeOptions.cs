using Pesto.CommandLine;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Startup;

/// <summary>What the command line of <c>pesto serve</c> asks for.</summary>
public sealed class ServeOptions
{
    const int NetnsId = 256, TargetId = 257, ConfTimeoutId = 258, StatsId = 259, VersionId = 260, FreeBindId = 261;
    const int ConnectTimeoutId = 262, IdleTimeoutId = 263, UsernsId = 264, NetnsOnlyId = 265, NoNetnsQuitId = 266;
    const int RunAsId = 267, NoTcpId = 268, NoUdpId = 269, NoSandboxId = 290;
    const int UdpTimeoutId = 270, UdpStreamTimeoutId = 271, UdpMaxFlowsId = 272;
    const int HalfClosedTimeoutId = 273, KeepaliveId = 274;

    static readonly OptionReader.Option[] Known =
    [
        new('t', 't', "tcp-ports", true),
        new('u', 'u', "udp-ports", true),
        new('T', 'T', "tcp-ns", true),
        new('U', 'U', "udp-ns", true),
        new('c', 'c', "conf-path", true),
        new(NetnsId, '\0', "netns", true),
        new(UsernsId, '\0', "userns", true),
        new(NetnsOnlyId, '\0', "netns-only", false),
        new(NoNetnsQuitId, '\0', "no-netns-quit", false),
        new(RunAsId, '\0', "runas", true),
        new(TargetId, '\0', "target", true),
        new('f', 'f', "foreground", false),
        new('P', 'P', "pid", true),
        new('l', 'l', "log-file", true),
        new('q', 'q', "quiet", false),
        new('d', 'd', "debug", false),
        new('4', '4', "ipv4-only", false),
        new('6', '6', "ipv6-only", false),
        new(NoTcpId, '\0', "no-tcp", false),
        new(NoUdpId, '\0', "no-udp", false),
        new(NoSandboxId, '\0', "no-sandbox", false),
        new(FreeBindId, '\0', "freebind", false),
        new(ConfTimeoutId, '\0', "conf-timeout", true),
        new(ConnectTimeoutId, '\0', "connect-timeout", true),
        new(IdleTimeoutId, '\0', "idle-timeout", true),
        new(HalfClosedTimeoutId, '\0', "half-closed-timeout", true),
        new(KeepaliveId, '\0', "keepalive", true),
        new(UdpTimeoutId, '\0', "udp-timeout", true),
        new(UdpStreamTimeoutId, '\0', "udp-stream-timeout", true),
        new(UdpMaxFlowsId, '\0', "udp-max-flows", true),
        new(StatsId, '\0', "stats", true),
        new('h', 'h', "help", false),
        new(VersionId, '\0', "version", false),
    ];

    readonly List<(PortOption Option, string Text)> _specifiers = [];

    /// <summary>Specifiers in the order given.</summary>
    public IReadOnlyList<(PortOption Option, string Text)> Specifiers => _specifiers;

    public string? ControlPath { get; private set; }

    /// <summary>The path of the target's network namespace; null to stay on this host.</summary>
    public string? NetnsPath { get; private set; }

    /// <summary>The path of the user namespace to enter on the way there; null to enter the one that owns the network namespace, if need be.</summary>
    public string? UsernsPath { get; private set; }

    /// <summary>Enter no user namespace.</summary>
    public bool NetnsOnly { get; private set; }

    /// <summary>Go on when what <see cref="NetnsPath"/> names is gone.</summary>
    public bool NoNetnsQuit { get; private set; }

    /// <summary>The user and group to change to before anything else; null to stay who one is, or, as root, to become nobody at the end.</summary>
    public Identity? RunAs { get; private set; }

    /// <summary>Keep every privilege and make any system call, for who looks for a mistake.</summary>
    public bool NoSandbox { get; private set; }

    public Address? TargetV4 { get; private set; }

    public Address? TargetV6 { get; private set; }

    public bool Foreground { get; private set; }

    public string? PidPath { get; private set; }

    public string? LogPath { get; private set; }

    public bool Quiet { get; private set; }

    public bool Debug { get; private set; }

    public bool NoV4 { get; private set; }

    public bool NoV6 { get; private set; }

    public bool NoTcp { get; private set; }

    public bool NoUdp { get; private set; }

    public bool FreeBind { get; private set; }

    public bool Help { get; private set; }

    public bool ShowVersion { get; private set; }

    /// <summary>What it makes at the start and takes away at the end.</summary>
    public string[] OwnFiles => [.. new[] { ControlPath, PidPath }.OfType<string>()];

    /// <summary>Milliseconds.</summary>
    public long ConfTimeout { get; private set; } = 10_000;

    /// <summary>Milliseconds, 0 for the kernel's own.</summary>
    public long ConnectTimeout { get; private set; }

    /// <summary>Milliseconds, 0 for never.</summary>
    public long IdleTimeout { get; private set; }

    /// <summary>Milliseconds, 0 for never.</summary>
    public long HalfClosedTimeout { get; private set; }

    /// <summary>Seconds, 0 for never.</summary>
    public int Keepalive { get; private set; }

    /// <summary>Milliseconds that a UDP flow may be idle before its target has sent anything, 0 for ever.</summary>
    public long UdpTimeout { get; private set; } = 30_000;

    /// <summary>Milliseconds that a UDP flow may be idle once both sides have sent something, 0 for ever.</summary>
    public long UdpStreamTimeout { get; private set; } = 180_000;

    /// <summary>The most UDP flows at a time, 0 for as many as the descriptors allow.</summary>
    public int UdpMaxFlows { get; private set; }

    /// <summary>Milliseconds between two lines of counters, 0 for none.</summary>
    public long StatsInterval { get; private set; }

    /// <exception cref="UsageException">What can't be understood.</exception>
    public static ServeOptions Parse(string[] arguments)
    {
        OptionReader line = new(arguments, Known);
        ServeOptions options = new();
        for (int id; (id = line.Next()) != -1;)
            options.Take(id, line);
        if (options.Help || options.ShowVersion)
            return options;
        options.TakeProcess(line.Operands);
        if (options.NoV4 && options.NoV6)
            throw new UsageException("-4 and -6 exclude each other");
        if (options.NetnsPath is not null && (options.TargetV4 ?? options.TargetV6) is not null)
            throw new UsageException("a network namespace and --target exclude each other");
        if (options.UsernsPath is not null && options.NetnsOnly)
            throw new UsageException("--userns and --netns-only exclude each other");
        if (options.NetnsPath is null && (options.UsernsPath is not null || options.NetnsOnly))
            throw new UsageException($"{(options.NetnsOnly ? "--netns-only" : "--userns")} needs a network namespace: --netns, or the id of a process");
        return options;
    }

    /// <summary>The one operand there may be: the id of a process in the target namespace.</summary>
    void TakeProcess(IReadOnlyList<string> operands)
    {
        if (operands.Count == 0)
            return;
        if (operands.Count > 1)
            throw new UsageException($"unexpected argument {operands[1]}");
        if (!uint.TryParse(operands[0], System.Globalization.NumberStyles.None, null, out uint pid) || pid == 0)
            throw new UsageException($"{operands[0]}: not the id of a process");
        if (NetnsPath is not null)
            throw new UsageException("--netns and the id of a process exclude each other");
        NetnsPath = $"/proc/{pid}/ns/net";
    }

    void Take(int id, OptionReader line)
    {
        switch (id)
        {
            case 't': _specifiers.Add((PortOption.TcpIn, line.Value)); break;
            case 'u': _specifiers.Add((PortOption.UdpIn, line.Value)); break;
            case 'T': _specifiers.Add((PortOption.TcpOut, line.Value)); break;
            case 'U': _specifiers.Add((PortOption.UdpOut, line.Value)); break;
            case 'c': ControlPath = line.Value; break;
            case NetnsId: NetnsPath = line.Value.Contains('/') ? line.Value : $"/run/netns/{line.Value}"; break;
            case UsernsId: UsernsPath = line.Value; break;
            case NetnsOnlyId: NetnsOnly = true; break;
            case NoNetnsQuitId: NoNetnsQuit = true; break;
            case RunAsId: TakeUser(line.Value); break;
            case TargetId: TakeTarget(line.Value); break;
            case 'f': Foreground = true; break;
            case 'P': PidPath = line.Value; break;
            case 'l': LogPath = line.Value; break;
            case 'q': Quiet = true; break;
            case 'd': Debug = true; break;
            case '4': NoV6 = true; break;
            case '6': NoV4 = true; break;
            case NoTcpId: NoTcp = true; break;
            case NoUdpId: NoUdp = true; break;
            case NoSandboxId: NoSandbox = true; break;
            case FreeBindId: FreeBind = true; break;
            case ConfTimeoutId: ConfTimeout = Math.Max(1, Milliseconds(line)); break;
            case ConnectTimeoutId: ConnectTimeout = Milliseconds(line); break;
            case IdleTimeoutId: IdleTimeout = Milliseconds(line); break;
            case HalfClosedTimeoutId: HalfClosedTimeout = Milliseconds(line); break;
            case KeepaliveId: Keepalive = Number(line, 0, 32767); break;
            case UdpTimeoutId: UdpTimeout = Milliseconds(line); break;
            case UdpStreamTimeoutId: UdpStreamTimeout = Milliseconds(line); break;
            case UdpMaxFlowsId: UdpMaxFlows = Number(line, 1, 1 << 20); break;
            case StatsId: StatsInterval = Milliseconds(line); break;
            case 'h': Help = true; break;
            case VersionId: ShowVersion = true; break;
            default: throw new InvalidOperationException();
        }
    }

    void TakeTarget(string text)
    {
        if (!Address.TryParse(text.StartsWith('[') && text.EndsWith(']') ? text[1..^1] : text, out Address address) || address.IsWildcard || address.IsMulticast || address.IsBroadcast)
            throw new UsageException($"--target {text}: not an IPv4 or IPv6 address of one host");
        if (address.IsV4)
            TargetV4 = address;
        else
            TargetV6 = address;
    }

    static int Number(OptionReader line, int least, int most)
    {
        if (!int.TryParse(line.Value, System.Globalization.NumberStyles.None, null, out int number) || number < least || number > most)
            throw new UsageException($"{line.Written} {line.Value}: not a number from {least} to {most}");
        return number;
    }

    void TakeUser(string text)
    {
        if (!Identity.TryParse(text, out Identity identity))
            throw new UsageException($"--runas {text}: not a user (UID, UID:GID, LOGIN or LOGIN:GROUP) of this system");
        RunAs = identity;
    }

    /// <summary>Seconds, with or without a fraction, up to a day.</summary>
    static long Milliseconds(OptionReader line)
    {
        if (!decimal.TryParse(line.Value, System.Globalization.NumberStyles.AllowDecimalPoint, null, out decimal seconds) || seconds > 86_400)
            throw new UsageException($"{line.Written} {line.Value}: not a number of seconds from 0 to 86400");
        return (long)(seconds * 1000);
    }

    public const string HelpText = """
        Usage: pesto serve [OPTION]... [PID]

        Carries TCP connections and UDP datagrams from ports of this host into a network
        namespace, or to another address, and takes new tables of ports while it runs: see
        "pesto --help".

        What to forward (SPEC as in "pesto --help"; each may be given several times):
          -t, --tcp-ports SPEC    TCP ports of the host to forward
          -u, --udp-ports SPEC    UDP ports of the host to forward
          -T, --tcp-ns SPEC       TCP ports of the namespace's loopback to forward to the
                                  host's
          -U, --udp-ns SPEC       the same for UDP
          -4, --ipv4-only         IPv4 only
          -6, --ipv6-only         IPv6 only
              --no-tcp            no TCP
              --no-udp            no UDP
              --freebind          allow listening addresses that the host does not have

        Where to:
          PID                     the loopback of this process's network namespace
              --netns PATH|NAME   the loopback of this network namespace: a path, or a name
                                  as in ip-netns(8)
              --userns PATH       enter this user namespace on the way there (default: the
                                  one that owns the network namespace, if need be)
              --netns-only        enter no user namespace
              --no-netns-quit     go on when the process has ended, or PATH or NAME is gone;
                                  default: end with status 0
              --target ADDR       without a namespace: this address, as seen from this host;
                                  once for each family (default: 127.0.0.1 and ::1)

        Control and life:
          -c, --conf-path PATH    listen here for clients that look at the tables and
                                  replace them: pesto(1) of passt, or "pesto PATH"
              --conf-timeout SEC  drop a client that stalls for so long (default: 10)
              --connect-timeout SEC  reset a client whose target does not answer for so
                                  long (default: as long as the kernel tries)
              --idle-timeout SEC  reset connections that move nothing for so long
                                  (default: never)
              --half-closed-timeout SEC  the same for connections one side of which has
                                  ended its stream (default: never)
              --keepalive SEC     ask clients and targets that are silent for so long
                                  whether they are still there, and reset the connection
                                  if none of four questions in as long again is answered
                                  (default: 0, never; what was sent and is not confirmed
                                  is sent again for as long as the kernel tries)
              --udp-timeout SEC   forget a UDP client that has sent something and got no
                                  answer after so long (default: 30; 0: never)
              --udp-stream-timeout SEC  the same once both sides have sent something
                                  (default: 180)
              --udp-max-flows N   so many UDP clients at a time; beyond that, the one that
                                  has been silent longest is forgotten (default: half of
                                  the descriptors)
              --runas USER[:GROUP]  started by root, be this user, by name or number, from the
                                  beginning, and keep nothing but the right to low ports;
                                  default: become "nobody" once everything listens
              --no-sandbox        keep all privileges and allow all system calls
          -f, --foreground        stay in the foreground; default: go to the background
                                  once everything listens
          -P, --pid FILE          write the process id here once everything listens
          -l, --log-file FILE     append messages to a file, instead of standard error
          -q, --quiet             warnings and errors only
          -d, --debug             say more
              --stats SEC         print counters every so many seconds; SIGUSR1 prints
                                  them at any time
          -h, --help              show this and exit
              --version           show the version and exit

        Ports that can't be opened at the start end the program with status 1 and a line for
        each, unless their rule is "all" or has exclusions only. SIGTERM and SIGINT end it
        with status 0.

        Examples:
          pesto serve -c /run/user/1000/web.sock --netns web -t 8080:80
          pesto serve -f -t 8080:80 $(podman inspect -f '{{.State.Pid}}' web)
          pesto serve -f --target 192.0.2.7 -t 127.0.0.1/2222:22

        """;
}
