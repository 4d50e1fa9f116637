using System.Text;
using Pesto.Linux;
using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Client;

/// <summary>Tables and outcome as one JSON object on one line, for scripts. Names stay the same from version to version.</summary>
static class Json
{
    public static string Text(string path, ServerState state, Outcome? outcome)
    {
        StringBuilder text = new();
        Append(text.Append("{\"path\":"), path).Append(",\"version\":").Append(state.Version);
        text.Append(",\"transactions\":").Append(state.HasTransactions ? "true" : "false");
        if (outcome is not null)
            AppendOutcome(text, outcome);
        text.Append(",\"pifs\":[");
        for (int i = 0; i < state.Pifs.Count; i++)
            AppendPif(text.Append(i == 0 ? "" : ","), state.Pifs[i]);
        return text.Append("]}\n").ToString();
    }

    /// <summary>What there is to say if the tables are not known, or not to be.</summary>
    public static string Failure(string path, string result, string error)
    {
        StringBuilder text = new();
        Append(text.Append("{\"path\":"), path).Append(",\"result\":\"").Append(result);
        return Append(text.Append("\",\"error\":"), error).Append("}\n").ToString();
    }

    static void AppendOutcome(StringBuilder text, Outcome outcome)
    {
        text.Append(",\"result\":\"").Append(outcome.Result).Append("\",\"failures\":").Append(outcome.FailureCount).Append(",\"failed\":[");
        for (int i = 0; i < outcome.Failures.Count; i++)
        {
            Outcome.Failure failure = outcome.Failures[i];
            Append(text.Append(i == 0 ? "" : ",").Append("{\"pif\":"), failure.Pif).Append(',');
            AppendListening(text, failure.Rule);
            text.Append(",\"port\":").Append(failure.Port).Append(",\"errno\":").Append((int)failure.Error);
            Append(text.Append(",\"error\":"), failure.Error.Text()).Append('}');
        }

        text.Append(']');
    }

    static void AppendPif(StringBuilder text, PifState pif)
    {
        Append(text.Append("{\"number\":").Append(pif.Number).Append(",\"name\":"), pif.Name);
        text.Append(",\"capabilities\":").Append((uint)pif.Table.Capabilities).Append(",\"rules\":[");
        ReadOnlySpan<Rule> rules = pif.Table.Rules;
        for (int i = 0; i < rules.Length; i++)
        {
            ref readonly Rule rule = ref rules[i];
            AppendListening(text.Append(i == 0 ? "{" : ",{"), in rule);
            text.Append(",\"first\":").Append(rule.First).Append(",\"last\":").Append(rule.Last);
            text.Append(",\"target\":");
            if (rule.Target.IsWildcard)
                text.Append("null");
            else
                Append(text, rule.Target.ToString());
            text.Append(",\"to\":").Append(rule.To);
            text.Append(",\"weak\":").Append(rule.IsWeak ? "true" : "false").Append(",\"auto\":").Append(rule.IsScan ? "true" : "false").Append('}');
        }

        text.Append("]}");
    }

    static void AppendListening(StringBuilder text, in Rule rule)
    {
        text.Append("\"protocol\":\"").Append(rule.Protocol == IpProtocol.Tcp ? "tcp" : "udp").Append("\",\"address\":");
        Append(text, rule.IsDualStack ? "*" : rule.Address.ToString());
        text.Append(",\"interface\":");
        if (rule.Interface.IsEmpty)
            text.Append("null");
        else
            Append(text, rule.Interface.ToString());
    }

    static StringBuilder Append(StringBuilder text, string value)
    {
        text.Append('"');
        foreach (char c in value)
        {
            if (c is '"' or '\\')
                text.Append('\\').Append(c);
            else if (char.IsControl(c) || char.IsSurrogate(c))
                text.Append("\\u").Append(((int)c).ToString("x4"));
            else
                text.Append(c);
        }

        return text.Append('"');
    }
}
