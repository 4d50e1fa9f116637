using System.Diagnostics;
using Pesto.Bench.Peers;

namespace Pesto.Bench.Compare;

/// <summary>Runs every load against every peer in every scene, in interleaved rounds: A B C, A B C, and so on.</summary>
sealed class Comparison(IReadOnlyList<Peer> peers, IReadOnlyList<Load> loads, IReadOnlyList<Scene> scenes, int rounds, double seconds)
{
    const int FailuresToGiveUp = 2;

    public Machine Machine { get; } = Machine.This();

    public Dictionary<string, string> Versions { get; } = peers.ToDictionary(peer => peer.Name, peer => peer.Version);

    public IReadOnlyList<Scene> Scenes => scenes;

    public int Rounds => rounds;

    public double Seconds => seconds;

    public List<LoadResults> Results { get; } = [];

    public IEnumerable<string> Failures => Results.SelectMany(
        result => result.Peers.SelectMany(peer => peer.Errors.Select(error => $"{result.Scene.Name} {result.Load.Name}, {peer.Peer}: {error}"))).Distinct();

    /// <param name="finished">Told of each load when its last round is over.</param>
    public void Run(Action<LoadResults> finished)
    {
        int all = scenes.Sum(scene => Fitting(scene).Sum(load => peers.Count(peer => Fits(peer, load)))) * rounds;
        int done = 0;
        Stopwatch elapsed = Stopwatch.StartNew();
        foreach ((Scene scene, Load load) in scenes.SelectMany(Fitting, (scene, load) => (scene, load)))
        {
            Topology.Enter(scene);
            LoadResults results = new(scene, load);
            Results.Add(results);
            List<(Peer Peer, PeerResults Results)> entries = [.. peers.Where(peer => Fits(peer, load)).Select(peer => (peer, new PeerResults(peer.Name, peer.IsForwarder)))];
            results.Peers.AddRange(entries.Select(entry => entry.Results));
            for (int round = 1; round <= rounds; round++)
            {
                foreach ((Peer peer, PeerResults samples) in entries)
                {
                    Sample sample = samples.Errors.Count() < FailuresToGiveUp ? Sample(load, peer) : new() { Error = samples.Errors.Last() };
                    samples.Samples.Add(sample);
                    done++;
                    TimeSpan left = elapsed.Elapsed / done * (all - done);
                    string figure = sample.Error ?? $"{Figure.Text(sample.Value)} {load.Unit}";
                    Console.Error.WriteLine($"[{done}/{all}, {Math.Ceiling(left.TotalMinutes)} min left] {scene.Name} {load.Name} round {round}: {peer.Name} {figure}");
                }
            }

            finished(results);
        }
    }

    // What updates do, and what idle connections cost, is the same wherever the clients are and however TCP sends: once is enough.
    IEnumerable<Load> Fitting(Scene scene) => loads.Where(load => load.Subject == Subject.Rate || scene == scenes[0]);

    static bool Fits(Peer peer, Load load) =>
        (load.Transport == Transport.Tcp || peer.CarriesUdp) && (!load.NeedsControl || peer.HasControl) && (!load.NeedsProcess || peer.IsForwarder);

    Sample Sample(Load load, Peer peer)
    {
        try
        {
            using Trial trial = new(load, peer, seconds);
            return trial.Measure();
        }
        catch (Exception e) when (e is InvalidOperationException or IOException or System.Net.Sockets.SocketException)
        {
            return new() { Error = e.Message };
        }
    }
}
