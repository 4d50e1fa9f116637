using System.Text;
using Pesto.Linux;
using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Client;

/// <summary>The tables on standard output, in the form that scripts know from passt's client.</summary>
static class Listing
{
    /// <exception cref="LinuxException">Standard output does not take it.</exception>
    public static void Print(string title, string path, ServerState state)
    {
        Errno error = StandardOutput.Write(Text(title, path, state));
        if (error != Errno.None)
            throw new LinuxException("standard output", error);
    }

    public static string Text(string title, string path, ServerState state)
    {
        StringBuilder text = new();
        text.Append(title).Append(" (").Append(path).Append(")\n");
        foreach (PifState pif in state.Pifs)
        {
            RuleText.AppendPrintable(text.Append("  "), pif.Name).Append('\n');
            foreach (ref readonly Rule rule in pif.Table.Rules)
                RuleText.Append(text.Append("    "), in rule).Append('\n');
        }

        return text.ToString();
    }
}
