namespace Pesto.Client;

/// <summary>What the client's help says behind the options.</summary>
static class ClientNotes
{
    public const string Text = """
        Without any of -A to -U, the tables are printed. Those options are carried out in
        the order given, and sent as one update. Unless -A or -D comes before it, the
        first SPEC for a table replaces what is in that table, TCP and UDP.

        SPEC is "none", or [[ADDRESS][%INTERFACE]/]ITEM[,ITEM]... with ITEMs

          PORT or FIRST-LAST     these ports, to the same ports
          ...:PORT               to another port, or as many others: 22-80:32-90
          ...:TARGET[/PORT]      to an address; needs a listening ADDRESS of its family
          ~PORT or ~FIRST-LAST   not these, whatever else is said
          all                    every port that is not ephemeral, as far as it is free
          auto                   only while something listens on the target port; to what
                                 listens on loopback alone, only clients on the host's
                                 loopback are let in

        ADDRESS is where to listen: IPv4, IPv6 (in brackets or not), "*" or nothing for
        all; -T and -U take none. "none" asks that there be no such rules. A SPEC with
        nothing but exclusions and "auto" means all but these ports.

        Examples:

          pesto PATH                        print the tables
          pesto -t 8080:80,8443:443 PATH    forward these two, and nothing else inbound
          pesto -A -t 127.0.0.1/5432 PATH   one more, for clients on this host only
          pesto -A -t '[::1]/80' PATH       the same with IPv6
          pesto -D -u 5353:53 PATH          delete exactly this rule
          pesto -A -t 0.0.0.0/80:10.0.0.5/8080 PATH
                                            to a certain address behind the target
          pesto -t ~22,auto PATH            follow what the container listens on, not 22
          pesto -C HOST -C SPLICE PATH      forward nothing

        To "pesto serve" a change is a transaction: if a port can't be opened (and its rule
        is not "all", or nothing but exclusions), everything is as before, and each such
        port is named. --dry-run opens none there, so it finds none that is taken. passt and
        pasta tell nothing of the kind, so pesto looks itself before it sends, and again
        after.

        Exit status: 0 if what was asked was done, else 1, with the reason on standard
        error.

        "pesto serve" is the forwarder itself: see "pesto serve --help". For a control
        socket that is called "serve", write ./serve.
        """;
}
