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

    public override string ToString() => $"{this.Written} {this.Text}";
}

/// <summary>What the client is asked to do.</summary>
sealed class Options
{
    const int VersionId = 256;

    static readonly CommandLine.Option[] Known =
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
    ];

    /// <summary>Where the server's socket is.</summary>
    public string Path { get; private set; } = "";

    public List<Command> Commands { get; } = [];

    public bool Show { get; private set; }

    public bool Debug { get; private set; }

    /// <summary>Text to print instead of doing anything, if --help or --version is given.</summary>
    public string? Print { get; private set; }

    /// <exception cref="UsageException">The command line can't be understood.</exception>
    public static Options Parse(string[] args)
    {
        Options options = new();
        CommandLine line = new(args, Known);
        for (int id; options.Print is null && (id = line.Next()) != -1;)
            options.Take(id, line);
        if (options.Print is not null)
            return options;
        if (line.Operands.Count != 1)
            throw new UsageException(line.Operands.Count == 0 ? "the PATH of a control socket is missing" : $"{line.Operands[1]}: one PATH is enough");
        options.Path = line.Operands[0];
        return options;
    }

    void Take(int id, CommandLine line)
    {
        switch (id)
        {
            case 's':
                this.Show = true;
                break;
            case 'd':
                this.Debug = true;
                break;
            case 'h':
                this.Print = HelpText.Help;
                break;
            case VersionId:
                this.Print = Program.VersionText;
                break;
            default:
                this.Commands.Add(new() { Letter = (char)id, Text = line.Value, Written = line.Written, Ports = PortsOf((char)id) });
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
