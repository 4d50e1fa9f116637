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
    const int VersionId = 256, BestEffortId = 257, DryRunId = 258, ConfirmId = 259, CheckId = 260, JsonId = 261, NoProbeId = 262;

    const int LongestConfirmation = (int)Transactions.LongestConfirmation - 60;

    static readonly OptionReader.Option[] Known =
    [
        new('A', 'A', "add", false),
        new('D', 'D', "delete", false),
        new('C', 'C', "clear", true),
        new('t', 't', "tcp-ports", true),
        new('u', 'u', "udp-ports", true),
        new('T', 'T', "tcp-ns", true),
        new('U', 'U', "udp-ns", true),
        new('s', 's', "show", false),
        new('d', 'd', "debug", false),
        new('h', 'h', "help", false),
        new(VersionId, '\0', "version", false),
        new(BestEffortId, '\0', "best-effort", false, Whole: true),
        new(DryRunId, '\0', "dry-run", false, Whole: true),
        new(ConfirmId, '\0', "confirm", true, Whole: true),
        new(CheckId, '\0', "check", true, Whole: true),
        new(JsonId, '\0', "json", false, Whole: true),
        new(NoProbeId, '\0', "no-probe", false, Whole: true),
    ];

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
        OptionReader line = new(args, Known);
        for (int id; options.Print is null && (id = line.Next()) != -1;)
            options.Take(id, line);
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

    void Take(int id, OptionReader line)
    {
        switch (id)
        {
            case 's':
                Show = true;
                break;
            case 'd':
                Debug = true;
                break;
            case 'h':
                Print = HelpText.Help;
                break;
            case BestEffortId:
                BestEffort = true;
                break;
            case DryRunId:
                DryRun = true;
                break;
            case ConfirmId:
                Confirm = int.TryParse(line.Value, System.Globalization.NumberStyles.None, null, out int seconds) && seconds is > 0 and <= LongestConfirmation
                    ? seconds
                    : throw new UsageException($"{line.Written} {line.Value}: not a number of seconds from 1 to {LongestConfirmation}");
                break;
            case CheckId:
                Check = line.Value;
                break;
            case JsonId:
                Json = true;
                break;
            case NoProbeId:
                NoProbe = true;
                break;
            case VersionId:
                Print = VersionText.Value;
                break;
            default:
                Commands.Add(new() { Letter = (char)id, Text = line.Value, Written = line.Written, Ports = PortsOf((char)id) });
                break;
        }
    }

    static PortOption? PortsOf(char letter) => letter switch
    {
        't' => PortOption.TcpIn,
        'u' => PortOption.UdpIn,
        'T' => PortOption.TcpOut,
        'U' => PortOption.UdpOut,
        _ => null,
    };
}
