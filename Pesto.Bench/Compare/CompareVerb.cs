using System.Globalization;
using Pesto.Bench.Peers;

namespace Pesto.Bench.Compare;

/// <summary><c>compare</c>: the command line, and what is written where.</summary>
sealed class CompareVerb
{
    public const int DefaultRounds = 5;
    public const int DefaultSeconds = 2;

    readonly List<string> _peers = [];
    readonly List<string> _loads = [];
    readonly List<string> _clients = [];
    readonly List<string> _congestion = [];
    readonly int _rounds = DefaultRounds;
    readonly double _seconds = DefaultSeconds;
    readonly string? _json;
    readonly string? _svg;
    readonly string? _baseline;

    CompareVerb(string[] args)
    {
        List<string> words = _peers;
        for (int i = 0; i < args.Length; i++)
        {
            string Value() => ++i < args.Length ? args[i] : throw new ArgumentException($"{args[i - 1]} needs a value");
            switch (args[i])
            {
                case "--load":
                    words = _loads;
                    break;
                case "--clients":
                    words = _clients;
                    break;
                case "--congestion":
                    words = _congestion;
                    break;
                case "--baseline":
                    _baseline = Value();
                    break;
                case "--rounds":
                    _rounds = int.Parse(Value(), CultureInfo.InvariantCulture);
                    break;
                case "--seconds":
                    _seconds = double.Parse(Value(), CultureInfo.InvariantCulture);
                    break;
                case "--json":
                    _json = Value();
                    break;
                case "--svg":
                    _svg = Value();
                    break;
                case var option when option.StartsWith('-'):
                    throw new ArgumentException($"{option}: no such option");
                default:
                    words.Add(args[i]);
                    break;
            }
        }

        if (_rounds < 1 || _seconds is not (> 0 and <= 60))
            throw new ArgumentException("at least one round, of more than 0 and at most 60 seconds");
    }

    public static int Run(string[] args)
    {
        CompareVerb options = new(args[1..]);
        // Checked before anything is set up.
        List<Load> loads = options.ChosenLoads();
        List<Peer> peers = ChosenPeers(options._peers);
        List<Scene> scenes = options.ChosenScenes();
        Baseline? baseline = options._baseline == null ? null : Baseline.Read(options._baseline);
        using (Turn.Take())
            return Isolation.Run(args, () => options.Compare(peers, loads, scenes, baseline));
    }

    List<Load> ChosenLoads()
    {
        foreach (string name in _loads)
        {
            if (!Load.All.Any(load => load.Name.StartsWith(name, StringComparison.Ordinal)))
                throw new ArgumentException($"{name}: no such load; there are {string.Join(", ", Load.All.Select(load => load.Name))}");
        }

        return [.. Load.All.Where(load => _loads.Count == 0 || _loads.Any(name => Names(name, load)))];
    }

    /// <summary>Each placement of clients with each congestion control: local and cubic unless told otherwise.</summary>
    List<Scene> ChosenScenes()
    {
        Clients[] placements = [.. _clients.DefaultIfEmpty("local").Distinct().Select(name => name switch
        {
            "local" => Clients.Local,
            "remote" => Clients.Remote,
            _ => throw new ArgumentException($"--clients {name}: local or remote"),
        })];
        string[] available = File.ReadAllText("/proc/sys/net/ipv4/tcp_available_congestion_control").Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries);
        foreach (string name in _congestion)
        {
            if (!available.Contains(name))
                throw new ArgumentException($"--congestion {name}: this kernel has {string.Join(", ", available)}");
        }

        return [.. placements.SelectMany(_ => _congestion.DefaultIfEmpty("cubic").Distinct(), (placement, name) => new Scene(placement, name))];
    }

    // "update" is a load, and the beginning of another one's name.
    static bool Names(string name, Load load) =>
        Load.All.Any(other => other.Name == name) ? load.Name == name : load.Name.StartsWith(name, StringComparison.Ordinal);

    /// <summary>Those named, which must be there; or all that are there.</summary>
    public static List<Peer> ChosenPeers(IReadOnlyCollection<string> names)
    {
        foreach (string name in names)
        {
            if (Peer.All.All(peer => peer.Name != name))
                throw new ArgumentException($"{name}: no such forwarder; there are {string.Join(", ", Peer.All.Select(peer => peer.Name))}");
        }

        List<Peer> chosen = [];
        foreach (Peer peer in Peer.All.Where(peer => names.Count == 0 || names.Contains(peer.Name)))
        {
            string? obstacle = peer.Program == null ? $"is not installed: {peer.Installation}" : peer.Obstacle;
            if (obstacle == null)
                chosen.Add(peer);
            else if (names.Count > 0)
                throw new InvalidOperationException($"{peer.Name} {obstacle}");
            else if (Isolation.IsOuter)
                Console.Error.WriteLine($"left out: {peer.Name} {obstacle}");
        }

        return chosen;
    }

    int Compare(List<Peer> peers, List<Load> loads, List<Scene> scenes, Baseline? baseline)
    {
        Comparison comparison = new(peers, loads, scenes, _rounds, _seconds);
        if (comparison.Machine.IsBusy)
            Console.Error.WriteLine($"this machine is busy with other things (load {comparison.Machine.Load}): do not believe the figures");
        comparison.Run(results =>
        {
            Console.WriteLine(TextReport.Of(results));
            Save(comparison);
        });
        Console.WriteLine(TextReport.Summary(comparison));
        foreach (string failure in comparison.Failures)
            Console.Error.WriteLine($"failed: {failure}");
        IReadOnlyList<string> fallen = baseline?.FallenBehind(comparison) ?? [];
        foreach (string ratio in fallen)
            Console.Error.WriteLine($"fallen behind {_baseline}: {ratio}");
        return comparison.Failures.Any() || fallen.Count > 0 ? 1 : 0;
    }

    /// <summary>After each load, so that a run that is broken off leaves what it has.</summary>
    void Save(Comparison comparison)
    {
        if (_json != null)
            File.WriteAllText(_json, JsonReport.Of(comparison));
        if (_svg == null)
            return;
        foreach (Scene scene in comparison.Scenes.Where(scene => comparison.Results.Any(results => results.Scene == scene)))
            File.WriteAllText(comparison.Scenes.Count == 1 ? _svg : $"{Path.ChangeExtension(_svg, null)}-{scene.Name}.svg", Chart.Of(comparison, scene));
    }
}
