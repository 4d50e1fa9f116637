namespace Pesto.Bench.Compare;

/// <summary>All samples of one peer under one load, one for each round.</summary>
sealed class PeerResults(string peer, bool isForwarder)
{
    public string Peer => peer;

    public bool IsForwarder => isForwarder;

    public List<Sample> Samples { get; } = [];

    public IEnumerable<string> Errors => Samples.Where(sample => sample.Error != null).Select(sample => sample.Error!);

    public bool HasValue => Samples.Any(sample => sample.Error == null);

    public double Median => MedianOf(sample => sample.Value) ?? double.NaN;

    public double Least => Good.Min(sample => sample.Value);

    public double Most => Good.Max(sample => sample.Value);

    public double? MedianOf(Func<Sample, double?> figure) => Middle(Good.Select(figure));

    /// <summary>The median of the figures that only some loads have, by name.</summary>
    public IEnumerable<(string Name, double Value)> Others => Good.SelectMany(sample => sample.Others.Keys).Distinct()
        .Select(name => (name, MedianOf(sample => sample.Others.GetValueOrDefault(name)) ?? 0));

    IEnumerable<Sample> Good => Samples.Where(sample => sample.Error == null);

    /// <summary>
    /// What a figure of one is to that of the other, round by round, and of these the median: what slows the machine down for a
    /// moment slows down both.
    /// </summary>
    public static double? Ratio(PeerResults one, PeerResults other, Func<Sample, double?> figure) => Middle(one.Samples.Zip(other.Samples)
        .Where(pair => pair.First.Error == null && pair.Second.Error == null)
        .Select(pair => figure(pair.Second) > 0 ? figure(pair.First) / figure(pair.Second) : null));

    static double? Middle(IEnumerable<double?> values)
    {
        double[] sorted = [.. values.Where(value => value != null).Select(value => value!.Value).Order()];
        return sorted.Length == 0 ? null : (sorted[(sorted.Length - 1) / 2] + sorted[sorted.Length / 2]) / 2;
    }
}

/// <summary>All peers under one load.</summary>
sealed class LoadResults(Scene scene, Load load)
{
    public Scene Scene => scene;

    public Load Load => load;

    public List<PeerResults> Peers { get; } = [];

    public PeerResults? Pesto => Peers.FirstOrDefault(peer => peer.Peer == "pesto" && peer.HasValue);

    /// <summary>The best of the other forwarders, by its median; null when there is none.</summary>
    public PeerResults? Best => Peers.Where(peer => peer.IsForwarder && peer.Peer != "pesto" && peer.HasValue)
        .OrderBy(peer => load.HigherIsBetter ? -peer.Median : peer.Median).FirstOrDefault();
}
