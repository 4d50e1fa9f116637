using System.Globalization;

namespace Pesto.CommandLine;

/// <summary>An option as a command line has it.</summary>
/// <param name="Written">With its dashes, abbreviated names in full: "-t" or "--tcp-ports".</param>
/// <param name="Value">Empty for an option that takes none.</param>
public readonly record struct GivenOption(string Written, string Value)
{
    /// <exception cref="UsageException">The value is no decimal number in that range.</exception>
    public int Number(int least, int most, string what = "number")
    {
        if (!int.TryParse(Value, NumberStyles.None, CultureInfo.InvariantCulture, out int number) || number < least || number > most)
            throw new UsageException($"{Written} {Value}: not a {what} from {least} to {most}");
        return number;
    }

    /// <summary>Milliseconds; the value is seconds, with or without a fraction, up to a day.</summary>
    /// <exception cref="UsageException">It is not.</exception>
    public long Milliseconds()
    {
        if (!decimal.TryParse(Value, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out decimal seconds) || seconds > 86_400)
            throw new UsageException($"{Written} {Value}: not a number of seconds from 0 to 86400");
        return (long)(seconds * 1000);
    }
}
