using Pesto.Forwarder.Namespace;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Listening;

/// <summary>
/// Finds rules by which a connection would come back to the forwarder and go round. That is possible only where it
/// listens and connects in the same namespace.
/// </summary>
public sealed class SelfForwarding(Targets targets)
{
    /// <summary>The state of a rule in a depth-first walk over "leads to".</summary>
    enum Seen : byte
    {
        Not,

        /// <summary>It is on the path of the walk: a rule that leads to it closes a circle.</summary>
        OnTheWay,

        /// <summary>No circle is reached from it.</summary>
        Done,
    }

    /// <summary>Names a rule that leads back to itself, at once or by way of others; null if there is none.</summary>
    public string? Find(Tables tables, int set)
    {
        for (int pif = 0; pif < tables.Pifs.Length; pif++)
        {
            Tables.PifEntry entry = tables.Pifs[pif];
            if (entry.Listens != entry.Connects)
                continue;
            ReadOnlySpan<Rule> rules = tables.Rules(pif, set);
            Seen[] seen = new Seen[rules.Length];
            for (int start = 0; start < rules.Length; start++)
            {
                int again = seen[start] == Seen.Not ? Walk(rules, start, entry.Connects, seen) : -1;
                if (again >= 0)
                    return $"{entry.Name} rule {again}: port {rules[again].First} would be forwarded to the forwarder itself";
            }
        }

        return null;
    }

    /// <summary>Visits the rules that this one leads to; gives the first that closes a circle, or -1.</summary>
    int Walk(ReadOnlySpan<Rule> rules, int from, NetworkNamespace side, Seen[] seen)
    {
        seen[from] = Seen.OnTheWay;
        for (int to = 0; to < rules.Length; to++)
        {
            if (seen[to] == Seen.Done || !LeadsTo(in rules[from], in rules[to], side))
                continue;
            int again = seen[to] == Seen.OnTheWay ? to : Walk(rules, to, side, seen);
            if (again >= 0)
                return again;
        }

        seen[from] = Seen.Done;
        return -1;
    }

    bool LeadsTo(in Rule from, in Rule to, NetworkNamespace side)
    {
        if (from.Protocol != to.Protocol || from.To > to.Last || from.TargetPort(from.Last) < to.First)
            return false;
        (Address one, Address another) = targets.Of(in from);
        return Hits(one, in to, side) || Hits(another, in to, side);
    }

    static bool Hits(Address target, in Rule rule, NetworkNamespace side) =>
        rule.At(rule.First).Serves(target) && (rule.Address == target || side.IsLocal(target));
}
