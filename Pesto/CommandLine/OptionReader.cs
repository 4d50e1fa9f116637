namespace Pesto.CommandLine;

/// <summary>
/// Reads a command line as getopt_long(3) does: clustered short options, values attached or apart, unambiguous prefixes
/// of long options, options after other arguments, and "--" to end them.
/// </summary>
public sealed class OptionReader<T>(string[] arguments, Role<T> role)
{
    readonly List<string> _operands = [];
    int _at;
    int _inCluster;

    /// <summary>As the option that came last was given.</summary>
    public GivenOption Given { get; private set; }

    /// <summary>The arguments that are no options, complete when <see cref="Next"/> has given null.</summary>
    public IReadOnlyList<string> Operands => _operands;

    /// <summary>The next option, in the order given, or null at the end.</summary>
    /// <exception cref="UsageException">An option that does not exist, is ambiguous, lacks its value or has one too many.</exception>
    public Option<T>? Next()
    {
        while (_inCluster == 0)
        {
            if (_at >= arguments.Length)
                return null;
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

    Option<T> Short(string argument)
    {
        char letter = argument[_inCluster++];
        string rest = argument[_inCluster..];
        string written = $"-{letter}";
        Option<T> option = role.Find(letter) ?? throw new UsageException($"there is no option {written}");
        if (option.Argument is not null || rest.Length == 0)
        {
            _inCluster = 0;
            _at++;
        }

        Given = new(written, option.Argument is null ? "" : rest.Length > 0 ? rest : NextArgument(written));
        return option;
    }

    Option<T> Long(string argument)
    {
        int equals = argument.IndexOf('=', StringComparison.Ordinal);
        string name = equals < 0 ? argument[2..] : argument[2..equals];
        Option<T> option = role.Find(name) ?? throw new UsageException($"there is no option --{name}");
        string written = $"--{option.Name}";
        if (option.Argument is null && equals >= 0)
            throw new UsageException($"{written} takes no value");
        Given = new(written, option.Argument is null ? "" : equals >= 0 ? argument[(equals + 1)..] : NextArgument(written));
        return option;
    }

    string NextArgument(string written) => _at < arguments.Length ? arguments[_at++] : throw new UsageException($"{written} needs a value");
}

/// <summary>A command line that can't be understood.</summary>
public sealed class UsageException(string message) : Exception(message);
