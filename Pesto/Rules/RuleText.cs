using System.Text;

namespace Pesto.Rules;

/// <summary>A rule as people read it: "TCP [127.0.0.1]:8080  =>  80 ".</summary>
public static class RuleText
{
    public static string Text(in Rule rule) => Append(new StringBuilder(), in rule).ToString().TrimEnd();

    /// <summary>Appends the rule as listings show it, with the space that ends a rule without remarks.</summary>
    public static StringBuilder Append(StringBuilder to, in Rule rule)
    {
        to.Append(rule.Protocol.Name()).Append(" [");
        if (rule.IsDualStack)
            to.Append('*');
        else
            to.Append(rule.Address.ToString());
        to.Append(']');
        if (!rule.Interface.IsEmpty)
            AppendPrintable(to.Append('%'), rule.Interface.ToString());
        AppendPorts(to.Append(':'), rule.First, rule.Last).Append("  =>  ");
        if (!rule.Target.IsWildcard)
            to.Append(rule.Target.ToString()).Append(':');
        AppendPorts(to, rule.To, (ushort)(rule.To + rule.Last - rule.First)).Append(' ');
        if (rule.IsWeak)
            to.Append(" (best effort)");
        if (rule.IsScan)
            to.Append(" (auto-scan)");
        return to;
    }

    /// <summary>Appends a name that came from elsewhere, so that it can't steer the terminal.</summary>
    public static StringBuilder AppendPrintable(StringBuilder to, string name)
    {
        foreach (char c in name)
            to.Append(char.IsControl(c) ? '?' : c);
        return to;
    }

    public static string Name(this IpProtocol protocol) => protocol switch
    {
        IpProtocol.Tcp => "TCP",
        IpProtocol.Udp => "UDP",
        _ => "<unknown protocol>",
    };

    public static string Printable(string text) => AppendPrintable(new StringBuilder(), text).ToString();

    static StringBuilder AppendPorts(StringBuilder to, ushort first, ushort last)
    {
        to.Append(first);
        return first == last ? to : to.Append('-').Append(last);
    }
}
