using System.Text;
using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Client;

/// <summary>The tables on standard output, in the form that scripts know from passt's client.</summary>
static class Listing
{
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
