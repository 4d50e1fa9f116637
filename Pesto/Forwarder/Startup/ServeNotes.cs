namespace Pesto.Forwarder.Startup;

/// <summary>What the forwarder's help says in front of the options and behind them.</summary>
static class ServeNotes
{
    public const string Introduction = """
        Carries TCP connections and UDP datagrams from ports of this host into a network
        namespace, or to another address, and takes new tables of ports while it runs: see
        "pesto --help".
        """;

    public const string Text = """
        Ports that can't be opened at the start end the program with status 1 and a line for
        each, unless their rule is "all" or has exclusions only. SIGTERM and SIGINT end it
        with status 0.

        Examples:
          pesto serve -c /run/user/1000/web.sock --netns web -t 8080:80
          pesto serve -f -t 8080:80 $(podman inspect -f '{{.State.Pid}}' web)
          pesto serve -f --target 192.0.2.7 -t 127.0.0.1/2222:22
        """;
}
