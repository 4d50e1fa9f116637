using System.Text;

namespace Pesto.Bench.Compare;

/// <summary>The results as tables of plain text.</summary>
static class TextReport
{
    public static string Of(LoadResults results)
    {
        Load load = results.Load;
        string better = load.HigherIsBetter ? "higher is better" : "lower is better";
        StringBuilder text = new();
        text.AppendLine().AppendLine($"{load.Title} ({load.Name}), {results.Scene.Title}, {load.Unit}, {better}");
        List<string[]> rows = [["", "median", "least", "most", "p50 us", "p99 us", load.Work.Length > 0 ? $"CPU ms/{load.Work}" : "CPU", "peak MiB", ""]];
        foreach (PeerResults peer in results.Peers)
        {
            rows.Add(peer.HasValue
                ?
                [
                    peer.Peer, Figure.Text(peer.Median), Figure.Text(peer.Least), Figure.Text(peer.Most),
                    Figure.Text(peer.MedianOf(sample => sample.Median)), Figure.Text(peer.MedianOf(sample => sample.P99)),
                    Figure.Text(peer.MedianOf(sample => sample.Cpu * 1e3)), Figure.Text(peer.MedianOf(sample => sample.PeakKiB / 1024.0)),
                    string.Join(", ", peer.Others.Select(other => $"{other.Name} {Figure.Text(other.Value)}")),
                ]
                : [peer.Peer, "failed: " + peer.Errors.First(), "", "", "", "", "", "", ""]);
        }

        Append(text, rows);
        if (results is { Pesto: { } pesto, Best: { } best })
            text.AppendLine($"  pesto is {Ratio(pesto, best, sample => sample.Value)} of the best peer, {best.Peer} (median of the rounds' ratios)");
        return text.ToString();
    }

    /// <summary>One line for each load: pesto beside the best of the others.</summary>
    public static string Summary(Comparison comparison)
    {
        StringBuilder text = new();
        text.AppendLine().AppendLine($"{comparison.Machine}; {comparison.Rounds} interleaved rounds of {comparison.Seconds} s")
            .AppendLine(string.Join(", ", comparison.Versions.Where(version => version.Value.Length > 0).Select(version => $"{version.Key} {version.Value}")))
            .AppendLine();
        List<string[]> rows = [["clients", "load", "pesto", "best peer", "", "", "pesto/best", "p99", "CPU", "CPU pesto/pasta"]];
        foreach (LoadResults results in comparison.Results)
        {
            PeerResults? pesto = results.Pesto;
            PeerResults? best = results.Best;
            PeerResults? pasta = results.Peers.FirstOrDefault(peer => peer.Peer == "pasta");
            rows.Add(
            [
                results.Scene.Name, results.Load.Name, Figure.Text(pesto?.Median), Figure.Text(best?.Median), best?.Peer ?? "-",
                results.Load.Unit + (results.Load.HigherIsBetter ? "" : " (lower is better)"),
                Ratio(pesto, best, sample => sample.Value), Ratio(pesto, best, sample => sample.P99), Ratio(pesto, best, sample => sample.Cpu),
                Ratio(pesto, pasta, sample => sample.Cpu),
            ]);
        }

        Append(text, rows);
        return text.ToString();
    }

    static string Ratio(PeerResults? one, PeerResults? other, Func<Sample, double?> figure) =>
        one == null || other == null || PeerResults.Ratio(one, other, figure) is not { } ratio ? "-" : ratio.ToString("0.00", null);

    static void Append(StringBuilder text, List<string[]> rows)
    {
        int last = rows[0].Length - 1;
        int[] widths = [.. Enumerable.Range(0, last).Select(column => rows.Where(row => row[1].Length < 20).Max(row => row[column].Length))];
        foreach (string[] row in rows)
        {
            string line = "  " + row[0].PadRight(widths[0]);
            for (int i = 1; i < last; i++)
                line += "  " + row[i].PadLeft(widths[i]);
            text.AppendLine($"{line}  {row[last]}".TrimEnd());
        }
    }
}
