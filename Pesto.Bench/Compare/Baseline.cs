using System.Globalization;
using System.Text.Json;

namespace Pesto.Bench.Compare;

/// <summary>
/// The ratios of an earlier comparison, read from its JSON report. Figures of two runs can't be compared, since machines differ
/// from day to day; what pesto's figure is to a peer's of the same run can.
/// </summary>
sealed class Baseline
{
    /// <summary>How far a ratio may be worse before it counts: less than that is noise.</summary>
    const double Tolerance = 0.10;

    readonly Dictionary<(string Scene, string Load, string Peer), double> _ratios = [];

    public static Baseline Read(string file)
    {
        Baseline baseline = new();
        using JsonDocument report = JsonDocument.Parse(File.ReadAllText(file));
        foreach (JsonElement load in report.RootElement.GetProperty("loads").EnumerateArray())
        {
            string clients = load.TryGetProperty("clients", out JsonElement placement) ? placement.GetString()! : "local";
            string scene = load.TryGetProperty("congestion", out JsonElement congestion) ? $"{clients}-{congestion.GetString()}" : "";
            foreach (JsonElement peer in load.GetProperty("peers").EnumerateArray())
            {
                if (peer.TryGetProperty("pestoRatio", out JsonElement ratio) && ratio.TryGetProperty("value", out JsonElement value))
                    baseline._ratios[(scene, load.GetProperty("name").GetString()!, peer.GetProperty("peer").GetString()!)] = value.GetDouble();
            }
        }

        return baseline;
    }

    /// <summary>A line for each ratio to a forwarder that has become worse by more than a tenth.</summary>
    public IReadOnlyList<string> FallenBehind(Comparison comparison)
    {
        List<string> fallen = [];
        foreach (LoadResults results in comparison.Results)
        {
            if (results.Pesto is not { } pesto)
                continue;
            foreach (PeerResults peer in results.Peers.Where(peer => peer.IsForwarder && peer != pesto))
            {
                double then = _ratios.GetValueOrDefault((results.Scene.Name, results.Load.Name, peer.Peer), double.NaN);
                double now = PeerResults.Ratio(pesto, peer, sample => sample.Value) ?? double.NaN;
                // No comparison with what is missing on either side holds.
                if (results.Load.HigherIsBetter ? now < then * (1 - Tolerance) : now > then / (1 - Tolerance))
                    fallen.Add(string.Create(CultureInfo.InvariantCulture, $"{results.Scene.Name} {results.Load.Name}: {now:0.00} of {peer.Peer}, was {then:0.00}"));
            }
        }

        return fallen;
    }
}
