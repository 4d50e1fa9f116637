using System.Text;

namespace Pesto.CommandLine;

/// <summary>A role of the program as its users see it: how it is called, its options, and what else there is to know.</summary>
/// <param name="synopsis">The ways to call it, a line each, without "Usage:".</param>
/// <param name="introduction">What it does, in lines as they are printed.</param>
/// <param name="notes">What stands behind the options in the full help, in lines as they are printed.</param>
/// <param name="groups">All options.</param>
public sealed class Role<T>(string[] synopsis, string introduction, string notes, params OptionGroup<T>[] groups)
{
    /// <summary>The column in which the meanings of options begin, and the one in which lines end at the latest.</summary>
    const int MeaningColumn = 26, LastColumn = 88;

    public ReadOnlySpan<string> Synopsis => synopsis;

    public ReadOnlySpan<OptionGroup<T>> Groups => groups;

    /// <summary>The option of that letter, or null.</summary>
    public Option<T>? Find(char letter)
    {
        foreach (OptionGroup<T> group in groups)
        {
            foreach (Option<T> option in group.Options)
            {
                if (option.Letter == letter && letter != '\0')
                    return option;
            }
        }

        return null;
    }

    /// <summary>The option of that long name, or the only one whose name begins so, or null.</summary>
    /// <exception cref="UsageException">Two names begin so.</exception>
    public Option<T>? Find(string name)
    {
        Option<T>? found = null, other = null;
        foreach (OptionGroup<T> group in groups)
        {
            foreach (Option<T> option in group.Options)
            {
                if (option.Name == name)
                    return option;
                if (option.Whole || !option.Name.StartsWith(name, StringComparison.Ordinal))
                    continue;
                other = found;
                found = option;
            }
        }

        return other is null ? found : throw new UsageException($"--{name} could be --{other.Name} or --{found!.Name}");
    }

    /// <summary>How it is called, what it does, and the options.</summary>
    public string Usage()
    {
        StringBuilder text = new();
        for (int i = 0; i < synopsis.Length; i++)
            text.Append(i == 0 ? "Usage: " : "       ").Append(synopsis[i]).Append('\n');
        text.Append('\n').Append(introduction).Append('\n');
        foreach (OptionGroup<T> group in groups)
        {
            text.Append('\n');
            if (group.Heading.Length > 0)
                text.Append(group.Heading).Append('\n');
            foreach ((string name, string meaning) in group.Operands)
                AppendEntry(text, $"  {name}", meaning);
            foreach (Option<T> option in group.Options)
                AppendEntry(text, $"{(option.Letter == '\0' ? "      " : $"  -{option.Letter}, ")}--{option.Name} {option.Argument}".TrimEnd(), option.Meaning);
        }

        return text.ToString();
    }

    /// <summary>The same, with all that there is to know.</summary>
    public string Help() => $"{Usage()}\n{notes}\n";

    static void AppendEntry(StringBuilder text, string name, string meaning)
    {
        int start = text.Length;
        text.Append(name);
        // A name that reaches into the meaning's column has its line for itself.
        if (text.Length - start > MeaningColumn - 2)
        {
            text.Append('\n');
            start = text.Length;
        }

        foreach (string word in meaning.Split(' '))
        {
            if (text.Length - start > MeaningColumn && text.Length - start + 1 + word.Length > LastColumn)
            {
                text.Append('\n');
                start = text.Length;
            }

            int column = text.Length - start;
            text.Append(' ', column < MeaningColumn ? MeaningColumn - column : 1).Append(word);
        }

        text.Append('\n');
    }
}
