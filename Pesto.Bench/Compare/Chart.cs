using System.Globalization;
using System.Security;
using System.Text;

namespace Pesto.Bench.Compare;

/// <summary>The medians as bars, a panel for each load, in SVG.</summary>
static class Chart
{
    const int Columns = 3;
    const int PanelWidth = 320;
    const int Gap = 24;
    const int LabelWidth = 76;
    const int ValueWidth = 62;
    const int NoteWidth = 172;
    const int BarHeight = 14;
    const int RowHeight = 20;
    const int Head = 44;
    const int Top = 64;

    const string Style = """
        <style>
          text { font-family: system-ui, "Segoe UI", Helvetica, Arial, sans-serif; font-size: 12px; fill: #334155; }
          .title { font-size: 18px; font-weight: 600; fill: #0f172a; }
          .small { font-size: 11px; fill: #64748b; }
          .panel { font-size: 12px; font-weight: 600; fill: #0f172a; }
          .pesto { fill: #15803d; }
          .peer { fill: #94a3b8; }
          .limit { fill: #e2e8f0; }
          .own { font-weight: 600; fill: #14532d; }
        </style>
        """;

    public static string Of(Comparison comparison, Scene scene)
    {
        List<LoadResults> panels = [.. comparison.Results.Where(results => results.Scene == scene && results.Peers.Any(peer => peer.HasValue))];
        StringBuilder body = new();
        int y = Top;
        foreach (LoadResults[] row in panels.Chunk(Columns))
        {
            for (int i = 0; i < row.Length; i++)
                Panel(body, row[i], Gap + (i * (PanelWidth + Gap)), y);
            y += Head + (row.Max(results => results.Peers.Count) * RowHeight) + Gap;
        }

        int width = Gap + (Columns * (PanelWidth + Gap));
        string versions = string.Join(", ", comparison.Versions.Where(version => version.Value.Length > 0).Select(version => $"{version.Key} {version.Value}"));
        StringBuilder svg = new();
        svg.AppendLine(CultureInfo.InvariantCulture, $"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y + 30}" width="{width}" height="{y + 30}">""")
            .AppendLine(Style)
            .AppendLine("""<rect width="100%" height="100%" fill="#ffffff"/>""");
        Text(svg, Gap, 30, "title", $"Port forwarders side by side: {scene.Title}");
        Text(svg, Gap, 48, "small", $"Medians of {comparison.Rounds} interleaved rounds of {comparison.Seconds} s; bars start at 0. Pale bars are limits: the kernel's own DNAT, and no forwarder at all.");
        svg.Append(body);
        Text(svg, Gap, y, "small", comparison.Machine.ToString());
        Text(svg, Gap, y + 16, "small", versions);
        return svg.AppendLine("</svg>").ToString();
    }

    static void Panel(StringBuilder svg, LoadResults results, int x, int y)
    {
        Text(svg, x, y + 14, "panel", results.Load.Title);
        Text(svg, x, y + 30, "small", results.Load.Unit + (results.Load.HigherIsBetter ? "" : ", lower is better"));
        // What a figure was reached at the cost of belongs beside it.
        int room = PanelWidth - LabelWidth - (results.Peers.Any(peer => Note(results.Load, peer).Length > 0) ? NoteWidth : ValueWidth);
        double most = results.Peers.Where(peer => peer.HasValue).Max(peer => peer.Median);
        int top = y + Head;
        foreach (PeerResults peer in results.Peers)
        {
            bool own = peer.Peer == "pesto";
            string emphasis = own ? "own" : "";
            Text(svg, x, top + 11, emphasis, peer.Peer);
            double length = peer.HasValue && most > 0 ? peer.Median / most * room : 0;
            string kind = own ? "pesto" : peer.IsForwarder ? "peer" : "limit";
            svg.AppendLine(CultureInfo.InvariantCulture, $"""<rect class="{kind}" x="{x + LabelWidth}" y="{top}" width="{length:0.0}" height="{BarHeight}" rx="2"/>""");
            Text(svg, x + LabelWidth + (int)length + 5, top + 11, emphasis, peer.HasValue ? Figure.Text(peer.Median) + Note(results.Load, peer) : "failed");
            top += RowHeight;
        }
    }

    static string Note(Load load, PeerResults peer)
    {
        Dictionary<string, double> others = peer.Others.ToDictionary(other => other.Name, other => other.Value);
        double broken = others.GetValueOrDefault("refused") + others.GetValueOrDefault("reset");
        double held = others.GetValueOrDefault("held", load.Count);
        return broken > 0 ? $", {Figure.Text(broken)} clients refused" : held < load.Count ? $", held only {Figure.Text(held)}" : "";
    }

    static void Text(StringBuilder svg, int x, int y, string kind, string text) =>
        svg.AppendLine(CultureInfo.InvariantCulture, $"""<text class="{kind}" x="{x}" y="{y}">{SecurityElement.Escape(text)}</text>""");
}
