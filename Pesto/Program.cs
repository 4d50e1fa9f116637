namespace Pesto;

/// <summary>Picks the role: forwarder for <c>pesto serve OPTION...</c>, else client.</summary>
static class Program
{
    static int Main(string[] arguments) =>
        arguments.Length > 1 && arguments[0] == "serve" ? Forwarder.Serve.Run(arguments[1..]) : Client.Entry.Run(arguments);
}
