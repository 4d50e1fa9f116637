namespace Pesto.CommandLine;

/// <summary>
/// Reads a command line as getopt_long(3) does: clustered short options, values attached or apart, unambiguous prefixes
/// of long options, options after other arguments, and "--" to end them.
/// </summary>
public sealed class OptionReader(string[] arguments, ReadOnlyMemory<OptionReader.Option> options)
{
    readonly List<string> _operands = [];
    int _at;
    int _inCluster;

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
    public IReadOnlyList<string> Operands => _operands;

    /// <summary>The next option's id, in the order given, or -1 at the end.</summary>
    /// <exception cref="UsageException">An option that does not exist, is ambiguous, lacks its value or has one too many.</exception>
    public int Next()
    {
        Value = "";
        while (_inCluster == 0)
        {
            if (_at >= arguments.Length)
                return -1;
            string argument = arguments[_at];
            if (argument == "--")
            {
                _operands.AddRange(arguments[(_at + 1)..]);
                _at = arguments.Length;
            }
            else if (argument.StartsWith("--", StringComparison.Ordinal))
            {
                _at++;
                return Long(argument);
            }
            else if (argument.Length > 1 && argument[0] == '-')
            {
                _inCluster = 1;
            }
            else
            {
                _operands.Add(argument);
                _at++;
            }
        }

        return Short(arguments[_at]);
    }

    int Short(string argument)
    {
        char letter = argument[_inCluster++];
        string rest = argument[_inCluster..];
        Written = $"-{letter}";
        Option option = default;
        foreach (Option candidate in options.Span)
        {
            if (candidate.Letter == letter && letter != '\0')
                option = candidate;
        }

        if (option.Name is null)
            throw new UsageException($"there is no option {Written}");
        if (option.HasValue || rest.Length == 0)
        {
            _inCluster = 0;
            _at++;
        }

        if (option.HasValue)
            Value = rest.Length > 0 ? rest : NextArgument();
        return option.Id;
    }

    int Long(string argument)
    {
        int equals = argument.IndexOf('=', StringComparison.Ordinal);
        string name = equals < 0 ? argument[2..] : argument[2..equals];
        Written = $"--{name}";
        Option option = Find(name);
        Written = $"--{option.Name}";
        if (!option.HasValue && equals >= 0)
            throw new UsageException($"{Written} takes no value");
        if (option.HasValue)
            Value = equals >= 0 ? argument[(equals + 1)..] : NextArgument();
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
        if (_at >= arguments.Length)
            throw new UsageException($"{Written} needs a value");
        return arguments[_at++];
    }
}

/// <summary>A command line that can't be understood.</summary>
public sealed class UsageException(string message) : Exception(message);
