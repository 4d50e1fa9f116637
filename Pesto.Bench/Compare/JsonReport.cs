using System.Text.Json;
using System.Text.Json.Serialization;
using Pesto.Bench.Peers;

namespace Pesto.Bench.Compare;

/// <summary>The results with every sample, as JSON.</summary>
static class JsonReport
{
    static readonly JsonSerializerOptions Options = new()
    {
        WriteIndented = true,
        PropertyNamingPolicy = JsonNamingPolicy.CamelCase,
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    };

    public static string Of(Comparison comparison) => JsonSerializer.Serialize(
        new
        {
            comparison.Machine,
            Commit = Repository.Commit,
            comparison.Versions,
            comparison.Rounds,
            comparison.Seconds,
            Loads = comparison.Results.Select(Load),
            comparison.Failures,
        },
        Options) + "\n";

    static object Load(LoadResults results) => new
    {
        Clients = results.Scene.Clients.ToString().ToLowerInvariant(),
        results.Scene.Congestion,
        results.Load.Name,
        results.Load.Title,
        results.Load.Unit,
        results.Load.HigherIsBetter,
        CpuSecondsPer = results.Load.Work.Length > 0 ? results.Load.Work : null,
        BestPeer = results.Best?.Peer,
        Peers = results.Peers.Select(peer => Peer(results, peer)),
    };

    static object Peer(LoadResults results, PeerResults peer) => new
    {
        peer.Peer,
        peer.IsForwarder,
        Median = peer.HasValue ? peer.Median : (double?)null,
        Least = peer.HasValue ? peer.Least : (double?)null,
        Most = peer.HasValue ? peer.Most : (double?)null,
        MedianMicroseconds = peer.MedianOf(sample => sample.Median),
        P99Microseconds = peer.MedianOf(sample => sample.P99),
        Cpu = peer.MedianOf(sample => sample.Cpu),
        PeakKiB = peer.MedianOf(sample => sample.PeakKiB),
        Others = peer.Others.ToDictionary(other => other.Name, other => other.Value),
        // What pesto's figures are to this peer's: the median of the rounds' ratios.
        PestoRatio = results.Pesto is not { } pesto || pesto == peer ? null : new
        {
            Value = PeerResults.Ratio(pesto, peer, sample => sample.Value),
            P99 = PeerResults.Ratio(pesto, peer, sample => sample.P99),
            Cpu = PeerResults.Ratio(pesto, peer, sample => sample.Cpu),
            Peak = PeerResults.Ratio(pesto, peer, sample => sample.PeakKiB),
        },
        peer.Samples,
    };
}
