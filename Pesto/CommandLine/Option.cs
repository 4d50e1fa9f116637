namespace Pesto.CommandLine;

/// <summary>
/// An option of a role, declared once: the parser, <c>--help</c>, the manual page and the shells' completions all come
/// from this.
/// </summary>
/// <typeparam name="T">What the options of the role are gathered in.</typeparam>
/// <param name="letter">'\0' for none.</param>
/// <param name="name">The long name, without dashes.</param>
/// <param name="argument">Stands for the value and says of what kind it is, as FILE or SEC; null for an option that takes none.</param>
/// <param name="meaning">What it does, as one paragraph.</param>
/// <param name="take">Stores what was given; throws <see cref="UsageException"/> if it can't be understood.</param>
/// <param name="whole">
/// No prefix of the name will do. For options that a program of the same name does not have: what its users abbreviate
/// must not become ambiguous.
/// </param>
public sealed class Option<T>(char letter, string name, string? argument, string meaning, Action<T, GivenOption> take, bool whole = false)
{
    /// <summary>An option without a letter.</summary>
    public Option(string name, string? argument, string meaning, Action<T, GivenOption> take, bool whole = false)
        : this('\0', name, argument, meaning, take, whole)
    {
    }

    public char Letter => letter;

    public string Name => name;

    public string? Argument => argument;

    public string Meaning => meaning;

    public bool Whole => whole;

    public void Take(T into, GivenOption given) => take(into, given);
}

/// <summary>Options that belong together, in the order in which <c>--help</c> lists them.</summary>
/// <param name="Heading">Empty for none.</param>
public sealed record OptionGroup<T>(string Heading, params Option<T>[] Options)
{
    /// <summary>Arguments that are no options and mean something of the kind, as the command line's synopsis calls them.</summary>
    public (string Name, string Meaning)[] Operands { get; init; } = [];
}
