using Pesto.CommandLine;
using Pesto.Forwarder.Listening;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Startup;

/// <summary>What the command line of <c>pesto serve</c> asks for.</summary>
public sealed class ServeOptions
{
    public static Role<ServeOptions> Role { get; } = new(
        ["pesto serve [OPTION]... [PID]"],
        ServeNotes.Introduction,
        ServeNotes.Text,
        new OptionGroup<ServeOptions>(
            """What to forward (SPEC as in "pesto --help"; each may be given several times):""",
            new('t', "tcp-ports", "SPEC", "TCP ports of the host to forward", (o, given) => o._specifiers.Add((PortOption.TcpIn, given.Value))),
            new('u', "udp-ports", "SPEC", "UDP ports of the host to forward", (o, given) => o._specifiers.Add((PortOption.UdpIn, given.Value))),
            new(
                'T',
                "tcp-ns",
                "SPEC",
                "TCP ports of the namespace's loopback to forward to the host's",
                (o, given) => o._specifiers.Add((PortOption.TcpOut, given.Value))),
            new('U', "udp-ns", "SPEC", "the same for UDP", (o, given) => o._specifiers.Add((PortOption.UdpOut, given.Value))),
            new('4', "ipv4-only", null, "IPv4 only", (o, _) => o.NoV6 = true),
            new('6', "ipv6-only", null, "IPv6 only", (o, _) => o.NoV4 = true),
            new("no-tcp", null, "no TCP", (o, _) => o.NoTcp = true),
            new("no-udp", null, "no UDP", (o, _) => o.NoUdp = true),
            new("freebind", null, "allow listening addresses that the host does not have", (o, _) => o.FreeBind = true)),
        new OptionGroup<ServeOptions>(
            "Where to:",
            new(
                "netns",
                "PATH|NAME",
                "the loopback of this network namespace: a path, or a name as in ip-netns(8)",
                (o, given) => o.NetnsPath = given.Value.Contains('/') ? given.Value : $"/run/netns/{given.Value}"),
            new(
                "userns",
                "PATH",
                "enter this user namespace on the way there (default: the one that owns the network namespace, if need be)",
                (o, given) => o.UsernsPath = given.Value),
            new("netns-only", null, "enter no user namespace", (o, _) => o.NetnsOnly = true),
            new(
                "no-netns-quit",
                null,
                "go on when the process has ended, or PATH or NAME is gone; default: end with status 0",
                (o, _) => o.NoNetnsQuit = true),
            new(
                "target",
                "ADDR",
                "without a namespace: this address, as seen from this host; once for each family (default: 127.0.0.1 and ::1)",
                (o, given) => o.TakeTarget(given.Value)),
            new(
                "client-address",
                "MODE",
                "what the container sees of clients that are not on the host's loopback: \"keep\", their own address and port; \"container\", an address of "
                    + "the container's own; \"loopback\", that of its loopback, which programs may trust; \"proxy\" and \"proxy-v1\", what the header of the PROXY "
                    + "protocol says, version 2 or 1; \"auto\", as \"keep\", or where that is not possible as \"container\" (default: auto)",
                (o, given) => o.TakeMode(given.Value)),
            new(
                "client-address-mark",
                "N",
                "the mark of packets, and the number of the table of routes, in the container, by which answers to a client's own address come back "
                    + "(default: 4208)",
                (o, given) => o.TakeMark(given)))
        {
            Operands = [("PID", "the loopback of this process's network namespace")],
        },
        new OptionGroup<ServeOptions>(
            "Control and life:",
            new(
                'c',
                "conf-path",
                "PATH",
                "listen here for clients that look at the tables and replace them: pesto(1) of passt, or \"pesto PATH\"",
                (o, given) => o.ControlPath = given.Value),
            new("conf-timeout", "SEC", "drop a client that stalls for so long (default: 10)", (o, given) => o.ConfTimeout = Math.Max(1, given.Milliseconds())),
            new(
                "connect-timeout",
                "SEC",
                "reset a client whose target does not answer for so long (default: as long as the kernel tries)",
                (o, given) => o.ConnectTimeout = given.Milliseconds()),
            new(
                "idle-timeout",
                "SEC",
                "reset connections that move nothing for so long (default: never)",
                (o, given) => o.IdleTimeout = given.Milliseconds()),
            new(
                "half-closed-timeout",
                "SEC",
                "the same for connections one side of which has ended its stream (default: never)",
                (o, given) => o.HalfClosedTimeout = given.Milliseconds()),
            new(
                "keepalive",
                "SEC",
                "ask clients and targets that are silent for so long whether they are still there, and reset the connection if none of four questions "
                    + "in as long again is answered (default: 0, never; what was sent and is not confirmed is sent again for as long as the kernel tries)",
                (o, given) => o.Keepalive = given.Number(0, 32767)),
            new(
                "udp-timeout",
                "SEC",
                "forget a UDP client that has sent something and got no answer after so long (default: 30; 0: never)",
                (o, given) => o.UdpTimeout = given.Milliseconds()),
            new(
                "udp-stream-timeout",
                "SEC",
                "the same once both sides have sent something (default: 180)",
                (o, given) => o.UdpStreamTimeout = given.Milliseconds()),
            new(
                "udp-max-flows",
                "N",
                "so many UDP clients at a time; beyond that, one is forgotten that got no answer, or that has been silent longest (default: half of the "
                    + "descriptors)",
                (o, given) => o.UdpMaxFlows = given.Number(1, 1 << 20)),
            new(
                "runas",
                "USER[:GROUP]",
                "started by root, be this user, by name or number, from the beginning, and keep nothing but the right to low ports; "
                    + "default: become \"nobody\" once everything listens",
                (o, given) => o.TakeUser(given.Value)),
            new("no-sandbox", null, "keep all privileges and allow all system calls", (o, _) => o.NoSandbox = true),
            new(
                'f',
                "foreground",
                null,
                "stay in the foreground; default: go to the background once everything listens",
                (o, _) => o.Foreground = true),
            new('P', "pid", "FILE", "write the process id here once everything listens", (o, given) => o.PidPath = given.Value),
            new('l', "log-file", "FILE", "append messages to a file, instead of standard error", (o, given) => o.LogPath = given.Value),
            new('q', "quiet", null, "warnings and errors only", (o, _) => o.Quiet = true),
            new('d', "debug", null, "say more", (o, _) => o.Debug = true),
            new(
                "stats",
                "SEC",
                "print counters every so many seconds; SIGUSR1 prints them at any time",
                (o, given) => o.StatsInterval = given.Milliseconds()),
            new('h', "help", null, "show this and exit", (o, _) => o.Help = true),
            new("version", null, "show the version and exit", (o, _) => o.ShowVersion = true)));

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

    /// <summary>The user and group to change to before anything else; null to keep the user, or, as root, to become "nobody" once everything listens.</summary>
    public Identity? RunAs { get; private set; }

    /// <summary>Keep every capability and allow any system call, for debugging.</summary>
    public bool NoSandbox { get; private set; }

    public Address? TargetV4 { get; private set; }

    public Address? TargetV6 { get; private set; }

    /// <summary>What the container sees of clients.</summary>
    public ClientAddressMode ClientAddress { get; private set; } = ClientAddressMode.Auto;

    /// <summary>The mark of packets from sockets with a client's address; also the number of a table of routes.</summary>
    public uint ClientAddressMark { get; private set; } = 4208;

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

    /// <summary>The paths of files that are made at the start and removed at the end.</summary>
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
        OptionReader<ServeOptions> line = new(arguments, Role);
        ServeOptions options = new();
        while (line.Next() is Option<ServeOptions> option)
            option.Take(options, line.Given);
        if (options.Help || options.ShowVersion)
            return options;
        options.TakeProcess(line.Operands);
        if (options.NoV4 && options.NoV6)
            throw new UsageException("-4 and -6 exclude each other");
        if (options.NetnsPath is not null && (options.TargetV4 ?? options.TargetV6) is not null)
            throw new UsageException("a network namespace and --target exclude each other");
        if (options.NetnsPath is null && options.ClientAddress == ClientAddressMode.Keep)
            throw new UsageException("--client-address keep needs a network namespace: --netns, or the id of a process");
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

    void TakeTarget(string text)
    {
        if (!Address.TryParse(text.StartsWith('[') && text.EndsWith(']') ? text[1..^1] : text, out Address address) || address.IsWildcard || address.IsMulticast || address.IsBroadcast)
            throw new UsageException($"--target {text}: not an IPv4 or IPv6 address of one host");
        if (address.IsV4)
            TargetV4 = address;
        else
            TargetV6 = address;
    }

    void TakeMode(string text) => ClientAddress = text switch
    {
        "auto" => ClientAddressMode.Auto,
        "keep" => ClientAddressMode.Keep,
        "container" => ClientAddressMode.Container,
        "loopback" => ClientAddressMode.Loopback,
        "proxy" => ClientAddressMode.Proxy,
        "proxy-v1" => ClientAddressMode.ProxyV1,
        _ => throw new UsageException($"--client-address {text}: not auto, keep, container, loopback, proxy or proxy-v1"),
    };

    void TakeMark(GivenOption given)
    {
        // Tables that the kernel or everybody has: default, main and local.
        const int FirstTaken = 253, LastTaken = 255;
        int mark = given.Number(1, int.MaxValue - 1);
        if (mark is >= FirstTaken and <= LastTaken)
            throw new UsageException($"{given.Written} {mark}: a table of routes that is in use");
        ClientAddressMark = (uint)mark;
    }

    void TakeUser(string text)
    {
        if (!Identity.TryParse(text, out Identity identity))
            throw new UsageException($"--runas {text}: not a user (UID, UID:GID, LOGIN or LOGIN:GROUP) of this system");
        RunAs = identity;
    }
}
