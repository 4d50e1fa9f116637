namespace Pesto;

/// <summary>
/// Reads a command line as getopt_long(3) does: clustered short options, values attached or apart, unambiguous prefixes
/// of long options, options after other arguments, and "--" to end them.
/// </summary>
public sealed class CommandLine(string[] arguments, ReadOnlyMemory<CommandLine.Option> options)
{
    readonly List<string> operands = [];
    int at;
    int inCluster;

    /// <param name="Id">What <see cref="Next"/> gives: the letter for options that have one.</param>
    /// <param name="Letter">'\0' for none.</param>
    /// <param name="Whole">
    /// No prefix of the name will do. For options that a program of the same name does not have: what its users
    /// abbreviate must not become ambiguous.
    /// </param>
    public readonly record struct Option(int Id, char Letter, string Name, bool HasValue, bool Whole = false);

    /// <summary>The value of the option that came last.</summary>
    public string Value { get; private set; } = "";

    /// <summary>As the option that came last was written: "-t" or "--tcp-ports".</summary>
    public string Written { get; private set; } = "";

    /// <summary>The arguments that are no options, complete when <see cref="Next"/> has given -1.</summary>
    public IReadOnlyList<string> Operands => this.operands;

    /// <summary>The next option's id, in the order given, or -1 at the end.</summary>
    /// <exception cref="UsageException">An option that does not exist, is ambiguous, lacks its value or has one too many.</exception>
    public int Next()
    {
        this.Value = "";
        while (this.inCluster == 0)
        {
            if (this.at >= arguments.Length)
                return -1;
            string argument = arguments[this.at];
            if (argument == "--")
            {
                this.operands.AddRange(arguments[(this.at + 1)..]);
                this.at = arguments.Length;
            }
            else if (argument.StartsWith("--", StringComparison.Ordinal))
            {
                this.at++;
                return this.Long(argument);
            }
            else if (argument.Length > 1 && argument[0] == '-')
            {
                this.inCluster = 1;
            }
            else
            {
                this.operands.Add(argument);
                this.at++;
            }
        }

        return this.Short(arguments[this.at]);
    }

    int Short(string argument)
    {
        char letter = argument[this.inCluster++];
        string rest = argument[this.inCluster..];
        this.Written = $"-{letter}";
        Option option = default;
        foreach (Option candidate in options.Span)
        {
            if (candidate.Letter == letter && letter != '\0')
                option = candidate;
        }

        if (option.Name is null)
            throw new UsageException($"there is no option {this.Written}");
        if (option.HasValue || rest.Length == 0)
        {
            this.inCluster = 0;
            this.at++;
        }

        if (option.HasValue)
            this.Value = rest.Length > 0 ? rest : this.NextArgument();
        return option.Id;
    }

    int Long(string argument)
    {
        int equals = argument.IndexOf('=', StringComparison.Ordinal);
        string name = equals < 0 ? argument[2..] : argument[2..equals];
        this.Written = $"--{name}";
        Option option = this.Find(name);
        this.Written = $"--{option.Name}";
        if (!option.HasValue && equals >= 0)
            throw new UsageException($"{this.Written} takes no value");
        if (option.HasValue)
            this.Value = equals >= 0 ? argument[(equals + 1)..] : this.NextArgument();
        return option.Id;
    }

    Option Find(string name)
    {
        Option found = default;
        foreach (Option candidate in options.Span)
        {
            if (candidate.Name == name)
                return candidate;
            if (candidate.Whole || !candidate.Name.StartsWith(name, StringComparison.Ordinal))
                continue;
            if (found.Name is not null)
                throw new UsageException($"--{name} could be --{found.Name} or --{candidate.Name}");
            found = candidate;
        }

        return found.Name is not null ? found : throw new UsageException($"there is no option --{name}");
    }

    string NextArgument()
    {
        if (this.at >= arguments.Length)
            throw new UsageException($"{this.Written} needs a value");
        return arguments[this.at++];
    }
}

/// <summary>A command line that can't be understood.</summary>
public sealed class UsageException(string message) : Exception(message);
