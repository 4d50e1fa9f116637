using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Tests.Harness;

/// <summary>The tables of both pifs, valid or not, as a test makes them up.</summary>
sealed class ServerTables
{
    const Capabilities Everything = Capabilities.V4 | Capabilities.V6 | Capabilities.Tcp | Capabilities.Udp | Capabilities.Scan | Capabilities.Interface;

    /// <summary>Rules by pif, in the order in which they are sent.</summary>
    public List<(byte Pif, Rule[] Rules)> Parts { get; } = [];

    /// <summary>TCP rules of the HOST table, as one writes them behind `-t`.</summary>
    public static ServerTables Tcp(params string[] specifiers) => new() { Parts = { (Pif.Host, Rules(specifiers)) } };

    public static ServerTables Host(params Rule[] rules) => new() { Parts = { (Pif.Host, rules) } };

    public static Rule[] Rules(params string[] specifiers) =>
        [.. specifiers.SelectMany(text => Specifier.Parse(text, PortOption.TcpIn, Everything, PortRange.UsualEphemeral).Rules)];

    /// <summary>The one rule that a specifier means.</summary>
    public static Rule Rule(string specifier) => Rules(specifier).Single();

    public static ServerTables Of(ServerState state)
    {
        ServerTables tables = new();
        foreach (PifState pif in state.Pifs)
            tables.Parts.Add((pif.Number, pif.Table.Rules.ToArray()));
        return tables;
    }

    public ServerTables With(byte pif, params Rule[] rules)
    {
        Parts.Add((pif, rules));
        return this;
    }

    public Rule[] Of(byte pif) => [.. Parts.Where(part => part.Pif == pif).SelectMany(part => part.Rules)];

    /// <summary>An update of version 2, up to and with the final 0.</summary>
    public byte[] Update()
    {
        byte[] update = new byte[1 + Parts.Sum(part => Wire.TableSize + (part.Rules.Length * Wire.RuleSize))];
        TablesWriter writer = new(update);
        foreach ((byte pif, Rule[] rules) in Parts)
            writer.Table(pif, rules);
        writer.End();
        return update;
    }

    /// <summary>Two are equal if they come to the same rules in each pif.</summary>
    public override bool Equals(object? obj) => obj is ServerTables other && ToString() == other.ToString();

    public override int GetHashCode() => ToString().GetHashCode();

    public override string ToString() => string.Join(
        "; ",
        new[] { Pif.Host, Pif.Splice }.Select(pif => $"{pif}: " + string.Join(", ", Of(pif).Select(rule => $"{RuleText.Text(in rule)} -> {rule.Target} {rule.To} {(int)rule.Flags}"))));
}
