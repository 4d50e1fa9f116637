using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder;

/// <summary>How a port that could not be opened is named, wherever it is reported.</summary>
public static class BindFailure
{
    /// <summary>Such as "TCP 0.0.0.0:80: Address already in use".</summary>
    public static string Text(in Rule rule, ushort port, Errno error)
    {
        string protocol = rule.Protocol == IpProtocol.Tcp ? "TCP" : "UDP";
        string address = rule.IsDualStack ? "*" : rule.Address.IsV4 ? rule.Address.ToString() : $"[{rule.Address}]";
        string on = rule.Interface.IsEmpty ? "" : $"%{rule.Interface}";
        return $"{protocol} {address}{on}:{port}: {error.Text()}";
    }
}
