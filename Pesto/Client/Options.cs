using Pesto.CommandLine;
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

    /// <summary>As its user wrote it, for messages.</summary>
    public override string ToString() => this.Text.Length > 0 ? $"-{this.Letter} {this.Text}" : $"-{this.Letter}";
}

/// <summary>What the client is asked to do.</summary>
sealed class Options
{
    const char Version = '\x01';

    static readonly OptionName[] Known =
    [
        new('A', "add"),
        new('D', "delete"),
        new('C', "clear", true),
        new('t', "tcp-ports", true),
        new('u', "udp-ports", true),
        new('T', "tcp-ns", true),
        new('U', "udp-ns", true),
        new('s', "show"),
        new('d', "debug"),
        new('h', "help"),
        new(Version, "version"),
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
        GetOpt getopt = new(args, Known);
        while (options.Print is null && getopt.Next(out char letter, out string argument))
            options.Take(letter, argument);
        if (options.Print is not null)
            return options;
        if (getopt.Operands.Count != 1)
            throw new UsageException(getopt.Operands.Count == 0 ? "the PATH of a control socket is missing" : $"{getopt.Operands[1]}: one PATH is enough");
        options.Path = getopt.Operands[0];
        return options;
    }

    void Take(char letter, string argument)
    {
        switch (letter)
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
            case Version:
                this.Print = HelpText.Version;
                break;
            default:
                this.Commands.Add(new() { Letter = letter, Text = argument, Ports = PortsOf(letter) });
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
