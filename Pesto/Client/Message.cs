using Pesto.Linux;

namespace Pesto.Client;

/// <summary>What the program tells its user, one line each, on standard error; in colour on a terminal, unless NO_COLOR is set.</summary>
static class Message
{
    const string Red = "31";
    const string Yellow = "33";
    const string Grey = "90";

    static bool? _colours;

    /// <summary>Whether <see cref="Debug"/> says anything.</summary>
    public static bool Debugging { get; set; }

    public static void Error(string text) => Line(Red, text);

    public static void Warning(string text) => Line(Yellow, text);

    public static void Debug(string text)
    {
        if (Debugging)
            Line(Grey, text);
    }

    static void Line(string colour, string text)
    {
        _colours ??= StandardOutput.ErrorIsTerminal && string.IsNullOrEmpty(Environment.GetEnvironmentVariable("NO_COLOR"));
        // If standard error can't be written, the exit status is all that is left.
        _ = StandardOutput.WriteError(_colours.Value ? $"\e[{colour}mpesto:\e[0m {text}\n" : $"pesto: {text}\n");
    }
}
