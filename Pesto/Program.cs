namespace Pesto;

/// <summary>Picks the role: forwarder for <c>pesto serve OPTION...</c>, else client.</summary>
static class Program
{
    public const string VersionText = "pesto 0.1.0\n";

    static int Main(string[] arguments) =>
        arguments.Length > 1 && arguments[0] == "serve" ? Forwarder.Serve.Run(arguments[1..]) : 1;
}
