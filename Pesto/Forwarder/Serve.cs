using Pesto.CommandLine;

namespace Pesto.Forwarder;

/// <summary>The forwarder: <c>pesto serve</c>.</summary>
public static class Serve
{
    /// <param name="args">The command line after "serve".</param>
    /// <returns>The exit status.</returns>
    public static int Run(string[] args)
    {
        Message.Error("serve: not there yet");
        return 1;
    }
}
