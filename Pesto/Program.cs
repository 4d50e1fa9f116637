namespace Pesto;

/// <summary>Picks the role: forwarder for <c>pesto serve OPTION...</c>, else client.</summary>
static class Program
{
    public const string VersionText = $"""
        pesto {BuildVersion.Text}
        Licence: Apache-2.0 <https://www.apache.org/licenses/LICENSE-2.0>
        Comes without warranty of any kind.

        """;

    static int Main(string[] arguments) =>
        arguments.Length > 1 && arguments[0] == "serve" ? Forwarder.Serve.Run(arguments[1..]) : Client.Entry.Run(arguments);
}
