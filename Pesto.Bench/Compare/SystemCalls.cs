using System.Globalization;
using Pesto.Bench.Peers;

namespace Pesto.Bench.Compare;

/// <summary>
/// <c>syscalls</c>: the system calls of forwarders for each exchange and each connection, counted by strace. Being traced slows a
/// forwarder down, so that more may wait for it at each turn than usually does; all are slowed down alike.
/// </summary>
static class SystemCalls
{
    const double Seconds = 3;
    static readonly string[] Loads = ["tcp-rr-1-64", "tcp-rr-64-64", "tcp-connect-1", "tcp-connect-32", "udp-rr-1", "udp-rr-32"];

    public static int Run(string[] args)
    {
        if (Tool.Find("strace") == null)
            throw new InvalidOperationException("strace is needed: apt-get install strace");
        List<Peer> peers = [.. CompareVerb.ChosenPeers(args[1..]).Where(peer => peer.IsForwarder)];
        return Isolation.Run(args, () => Count(peers));
    }

    static int Count(List<Peer> peers)
    {
        int failures = 0;
        foreach (Load load in Loads.Select(name => Load.All.Single(load => load.Name == name)))
        {
            Dictionary<string, Dictionary<string, double>> counts = [];
            foreach (Peer peer in peers.Where(peer => load.Transport == Transport.Tcp || peer.CarriesUdp))
            {
                Console.Error.WriteLine($"{load.Name}: {peer.Name}");
                try
                {
                    counts[peer.Name] = Count(load, peer);
                }
                catch (InvalidOperationException e)
                {
                    Console.Error.WriteLine($"failed: {load.Name}, {peer.Name}: {e.Message}");
                    failures++;
                }
            }

            Print(load, counts);
        }

        return failures == 0 ? 0 : 1;
    }

    static Dictionary<string, double> Count(Load load, Peer peer)
    {
        const string Summary = "/run/strace";
        using Trial trial = new(load, peer, Seconds);
        double exchanges = trial.CountWhile(tree =>
        {
            Child strace = new("strace", ["strace", "-f", "-c", "-U", "calls,name", "-o", Summary, .. tree.Members().SelectMany(id => new[] { "-p", $"{id}" })]);
            for (int i = 0; i < 250 && !tree.IsTraced; i++)
                Thread.Sleep(20);
            if (!tree.IsTraced)
                throw new InvalidOperationException($"strace did not attach: {strace.LastWords}");
            return strace.Interrupt;
        });
        if (exchanges <= 0)
            throw new InvalidOperationException("no exchange was completed while it was traced");

        // "CALLS NAME" between two lines of dashes.
        Dictionary<string, double> calls = File.ReadLines(Summary).Select(line => line.Split(' ', StringSplitOptions.RemoveEmptyEntries))
            .Where(fields => fields.Length == 2 && char.IsDigit(fields[0][0]))
            .ToDictionary(fields => fields[1], fields => long.Parse(fields[0], CultureInfo.InvariantCulture) / exchanges);
        return calls.Count > 0 ? calls : throw new InvalidOperationException("strace counted nothing");
    }

    static void Print(Load load, Dictionary<string, Dictionary<string, double>> counts)
    {
        string unit = load.Work.Contains("connections", StringComparison.Ordinal) ? "connection" : "exchange";
        Console.WriteLine($"\n{load.Title} ({load.Name}): system calls per {unit}");
        Console.WriteLine("  " + "".PadRight(18) + string.Concat(counts.Keys.Select(peer => peer.PadLeft(13))));
        IEnumerable<string> names = counts.Values.SelectMany(calls => calls.Keys).Distinct().Where(name => name != "total")
            .OrderByDescending(name => counts.Values.Max(calls => calls.GetValueOrDefault(name)));
        foreach (string name in names.Prepend("total"))
        {
            if (counts.Values.Any(calls => calls.GetValueOrDefault(name) >= 0.005))
                Console.WriteLine("  " + name.PadRight(18) + string.Concat(counts.Values.Select(calls => $"{calls.GetValueOrDefault(name):0.00}".PadLeft(13))));
        }
    }
}
