using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Listening;

/// <summary>How a port that could not be opened is named, wherever it is reported.</summary>
public static class BindFailure
{
    /// <summary>Such as "TCP 0.0.0.0:80: Address already in use".</summary>
    public static string Text(in Rule rule, ushort port, Errno error) => $"{rule.At(port)}: {error.Text()}";
}
