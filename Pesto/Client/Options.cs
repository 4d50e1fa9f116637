using Pesto.CommandLine;
using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Client;

/// <summary>An option that changes tables. They are carried out in the order given, once the server's tables are known.</summary>
sealed record Command
{
    /// <summary>-t, -u, -T or -U with its specifier in <see cref="Text"/>; null for the others.</summary>
    public PortOption? Ports { get; init; }

    /// <summary>'A', 'D', 'C' with the pif in <see cref="Text"/>, or the letter of <see cref="Ports"/>.</summary>
    public char Letter { get; init; }

    public string Text { get; init; } = "";

    /// <summary>The option as its user wrote it: "-t" or "--tcp-ports".</summary>
    public string Written { get; init; } = "";

    public override string ToString() => $"{Written} {Text}";
}

/// <summary>What the client is asked to do.</summary>
sealed class Options
{
    const int LongestConfirmation = (int)ApplyMessage.LongestConfirmation - 60;

    public static Role<Options> Role { get; } = new(
        ["pesto [OPTION]... PATH", "pesto serve [OPTION]..."],
        """
        Shows or changes the port forwarding tables of the passt, pasta or pesto whose
        control socket is PATH.
        """,
        ClientNotes.Text,
        new OptionGroup<Options>(
            "",
            new('t', "tcp-ports", "SPEC", "TCP ports of the host, into the namespace or guest", (o, given) => o.Add('t', given, PortOption.TcpIn)),
            new('u', "udp-ports", "SPEC", "UDP ports of the host, likewise", (o, given) => o.Add('u', given, PortOption.UdpIn)),
            new('T', "tcp-ns", "SPEC", "TCP ports of the namespace's loopback, out to the host", (o, given) => o.Add('T', given, PortOption.TcpOut)),
            new('U', "udp-ns", "SPEC", "UDP ports of the namespace's loopback, likewise", (o, given) => o.Add('U', given, PortOption.UdpOut)),
            new('A', "add", null, "what follows is added to the tables", (o, given) => o.Add('A', given)),
            new('D', "delete", null, "what follows is deleted from the tables", (o, given) => o.Add('D', given)),
            new('C', "clear", "PIF", "empty the table HOST (-t, -u) or SPLICE (-T, -U)", (o, given) => o.Add('C', given)),
            new('s', "show", null, "print the tables before and after the change", (o, _) => o.Show = true),
            new("json", null, "print tables and outcome as JSON", (o, _) => o.Json = true, whole: true),
            new("dry-run", null, "have the change checked, and make none", (o, _) => o.DryRun = true, whole: true),
            new("best-effort", null, "keep the change though some ports can't be opened", (o, _) => o.BestEffort = true, whole: true),
            new(
                "confirm",
                "SEC",
                """undo the change unless it is confirmed within so many seconds, by "y" on standard input""",
                (o, given) => o.Confirm = given.Number(1, LongestConfirmation, "number of seconds"), whole: true),
            new("check", "COMMAND", "with --confirm: confirmed if this command succeeds", (o, given) => o.Check = given.Value, whole: true),
            new(
                "no-probe",
                null,
                "don't look whether ports are free before sending them to a passt or pasta, which would not tell",
                (o, _) => o.NoProbe = true, whole: true),
            new('d', "debug", null, "tell on standard error what happens", (o, _) => o.Debug = true),
            new('h', "help", null, "this text with more, and nothing else", (o, _) => o.Print = Role!.Help()),
            new("version", null, "version and licence, and nothing else", (o, _) => o.Print = VersionText.Value)));

    /// <summary>Where the server's socket is.</summary>
    public string Path { get; private set; } = "";

    public List<Command> Commands { get; } = [];

    public bool Show { get; private set; }

    public bool Debug { get; private set; }

    /// <summary>Keep what could be opened, though some ports could not.</summary>
    public bool BestEffort { get; private set; }

    /// <summary>Have the tables checked, and change nothing.</summary>
    public bool DryRun { get; private set; }

    /// <summary>Seconds in which the user has to confirm, or 0 for not asking.</summary>
    public int Confirm { get; private set; }

    /// <summary>A command for the shell that confirms by succeeding, or null.</summary>
    public string? Check { get; private set; }

    /// <summary>Listing and outcome as JSON.</summary>
    public bool Json { get; private set; }

    /// <summary>Don't look, before sending, whether ports are free.</summary>
    public bool NoProbe { get; private set; }

    /// <summary>Text to print instead of doing anything, if --help or --version is given.</summary>
    public string? Print { get; private set; }

    /// <exception cref="UsageException">The command line can't be understood.</exception>
    public static Options Parse(string[] args)
    {
        Options options = new();
        OptionReader<Options> line = new(args, Role);
        while (options.Print is null && line.Next() is Option<Options> option)
            option.Take(options, line.Given);
        if (options.Print is not null)
            return options;
        if (line.Operands.Count != 1)
            throw new UsageException(line.Operands.Count == 0 ? "the PATH of a control socket is missing" : $"{line.Operands[1]}: one PATH is enough");
        if (options.Check is not null && options.Confirm == 0)
            throw new UsageException("--check needs --confirm SECONDS");
        if (options.BestEffort && options.DryRun)
            throw new UsageException("--best-effort and --dry-run exclude each other");
        options.Path = line.Operands[0];
        return options;
    }

    void Add(char letter, GivenOption given, PortOption? ports = null) =>
        Commands.Add(new() { Letter = letter, Text = given.Value, Written = given.Written, Ports = ports });
}
