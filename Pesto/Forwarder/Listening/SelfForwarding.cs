using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder;

/// <summary>
/// Finds rules by which a connection would come back to the forwarder and go round. That is possible only where it
/// listens and connects in the same namespace.
/// </summary>
public sealed class SelfForwarding(Targets targets)
{
    /// <summary>Names the first rule that leads back to itself, at once or by way of others; null if there is none.</summary>
    public string? Find(Tables tables, int set)
    {
        for (int pif = 0; pif < tables.Pifs.Length; pif++)
        {
            Tables.PifEntry entry = tables.Pifs[pif];
            if (entry.Listens != entry.Connects)
                continue;
            ReadOnlySpan<Rule> rules = tables.Rules(pif, set);
            bool[] reached = new bool[rules.Length];
            for (int start = 0; start < rules.Length; start++)
            {
                Array.Clear(reached);
                if (this.ComesBack(rules, start, start, entry.Connects, reached))
                    return $"{entry.Name} rule {start}: port {rules[start].First} would be forwarded to the forwarder itself";
            }
        }

        return null;
    }

    bool ComesBack(ReadOnlySpan<Rule> rules, int from, int start, Side side, bool[] reached)
    {
        for (int to = 0; to < rules.Length; to++)
        {
            if (reached[to] || !this.LeadsTo(in rules[from], in rules[to], side))
                continue;
            reached[to] = true;
            if (to == start || this.ComesBack(rules, to, start, side, reached))
                return true;
        }

        return false;
    }

    bool LeadsTo(in Rule from, in Rule to, Side side)
    {
        if (from.Protocol != to.Protocol || from.To > to.Last || from.TargetPort(from.Last) < to.First)
            return false;
        if (!from.Target.IsAny)
            return Hits(from.Target, in to, side);
        return ((from.IsDualStack || from.Address.IsV4) && Hits(targets.Default(isV4: true), in to, side))
            || ((from.IsDualStack || from.Address.IsV6) && Hits(targets.Default(isV4: false), in to, side));
    }

    static bool Hits(Address target, in Rule rule, Side side) =>
        rule.Address == target || ((rule.IsDualStack || (rule.Address.IsWildcard && rule.Address.IsV4 == target.IsV4)) && side.IsLocal(target));
}
