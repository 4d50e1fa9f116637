using Pesto.Bench.Compare;
using Pesto.Bench.Peers;

namespace Pesto.Bench;

/// <summary>What <c>--help</c> says.</summary>
static class Help
{
    public static string Text => $"""
        Usage: ./build.sh bench VERB [ARGUMENT...]

          micro [FILTER]
              Micro-benchmarks with what they allocate, by BenchmarkDotNet; those whose name contains FILTER, or all.

          compare [PEER...] [--load NAME...] [--clients local|remote...] [--congestion NAME...]
                  [--rounds N] [--seconds S] [--json FILE] [--svg FILE] [--baseline FILE]
              Puts forwarders side by side under the same loads: all that are installed, or those named. --load takes names
              of loads or their beginnings (tcp-rr). {CompareVerb.DefaultRounds} rounds of {CompareVerb.DefaultSeconds} seconds each unless told otherwise.
              --clients local (the default) has them connect over loopback, remote from a namespace of their own behind a veth
              pair. --congestion sets TCP's congestion control in all namespaces (cubic unless told otherwise). Of both, several
              can be named. With more than one of these scenes, --svg writes a chart for each: FILE-local-cubic.svg.
              Exits 1 if any load failed with any forwarder, or a ratio of pesto to a peer is more than 10% worse than in the
              --json FILE of an earlier run that --baseline names, and says which.

          syscalls [PEER...]
              System calls per exchange and per connection, counted by strace.

          connect-loop ADDRESS PORT [SECONDS]
              Connects to an echoing server, exchanges 64 bytes, closes, and so on, one connection at a time, until the time is
              up or standard input ends. Prints how many attempts were refused, reset or left without an answer, as JSON.

          server MODE PORT
              An echoing or swallowing server (tcp-echo, tcp-sink, tcp-source, udp-echo, udp-sink, udp-sink-gro) until standard
              input ends.

        Peers: {string.Join(", ", Peer.All.Select(peer => peer.Name))}
        Loads: {Wrapped(Load.All.Select(load => load.Name))}

        How it is compared. Everything runs in network namespaces that are made for it and vanish with it. Client and forwarder
        are in one, the server is in another; remote clients are in a third. One thread generates the load and one serves it, the same programs for all. Every
        run starts a fresh forwarder, server and client; rounds are interleaved (A B C, A B C, ...); ratios are taken round by
        round between neighbours, and of these the median. The client connects to {Topology.Loopback}:{Topology.ListenPort},
        or {Topology.OutsideAddress}:{Topology.ListenPort} from elsewhere.
          pesto, pasta      enter the server's namespace and connect to its loopback; remote clients reach pasta's tap interface
          haproxy           does so too, with a thread for each processor and buffers of 64 KiB
          rootlesskit       makes its own namespace, and the server runs there (builtin port driver)
          nginx, socat      can't enter a namespace and reach the server over a veth pair, with buffers of 64 KiB; nginx with a
                            worker for each processor, socat with a process for each connection or client
          dnat              the kernel's own forwarding, to the veth pair: a limit, not a competitor
          direct            no forwarder at all, over the veth pair: the other limit
        CPU is the forwarder's own time, user and system, of all its processes. "peak MiB" adds up the processes' highest
        resident sizes. Nothing is pinned to a processor: client, forwarder and server share what there is.

        """;

    static string Wrapped(IEnumerable<string> names) => string.Join(",\n       ", names.Chunk(8).Select(chunk => string.Join(", ", chunk)));
}
