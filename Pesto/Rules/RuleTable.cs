namespace Pesto.Rules;

/// <summary>The rules of one pif, in order, and what they must keep to when they are changed.</summary>
public sealed class RuleTable(Capabilities capabilities)
{
    /// <summary>The most listening sockets that the rules added to a table may need, if every port is counted.</summary>
    public const int MostSockets = 5 * 65536;

    readonly Rule[] _rules = new Rule[RuleCheck.MostRules];
    int _count;

    public Capabilities Capabilities => capabilities;

    public ReadOnlySpan<Rule> Rules => _rules.AsSpan(0, _count);

    /// <summary>Ports that were added here since the table was cleared or listed, less those that were deleted: may be negative.</summary>
    public int AddedPorts { get; private set; }

    /// <summary>Takes over a rule that a server lists. It is not checked: what is there is there.</summary>
    public void Load(in Rule rule) => _rules[_count++] = rule;

    public void Clear()
    {
        _count = 0;
        AddedPorts = 0;
    }

    /// <exception cref="RuleException">The rule is invalid, in conflict with another, or one too many; the table is as before.</exception>
    public void Add(in Rule rule)
    {
        RuleFault fault = RuleCheck.Check(in rule, capabilities);
        int conflicting = -1;
        if (fault == RuleFault.None)
            fault = RuleCheck.CheckAgainst(Rules, in rule, out conflicting);
        if (fault == RuleFault.Conflict)
            throw new RuleException($"{RuleText.Text(in rule)}: conflicts with {RuleText.Text(in _rules[conflicting])}");
        if (fault != RuleFault.None)
            throw new RuleException($"{RuleText.Text(in rule)}: {fault.Text()}");
        if (AddedPorts + rule.Ports > MostSockets)
            throw new RuleException($"{RuleText.Text(in rule)}: a table can have at most {MostSockets} listening sockets");
        AddedPorts += rule.Ports;
        _rules[_count++] = rule;
    }

    /// <summary>Takes away a rule that is the same in every part.</summary>
    /// <exception cref="RuleException">There is no such rule.</exception>
    public void Delete(in Rule rule)
    {
        int at = Find(in rule);
        AddedPorts -= rule.Ports;
        Rules[(at + 1)..].CopyTo(_rules.AsSpan(at));
        _count--;
    }

    /// <summary>Finds a rule, and what its user may have meant if there is another for the same traffic.</summary>
    int Find(in Rule rule)
    {
        for (int i = 0; i < _count; i++)
        {
            if (_rules[i].Equals(rule))
                return i;
            if (RuleCheck.Conflict(in _rules[i], in rule))
                throw new RuleException($"there is no rule {RuleText.Text(in rule)}, but {RuleText.Text(in _rules[i])}");
        }

        throw new RuleException($"there is no rule {RuleText.Text(in rule)}");
    }

    /// <summary>Adds or deletes what a specifier means.</summary>
    /// <exception cref="RuleException">As for a single rule. The rules before the one at fault have been added or deleted.</exception>
    public void Apply(Specifier specifier, bool delete = false)
    {
        if (specifier.IsNone && Has(specifier.Option.Protocol))
            throw new RuleException($"there are {specifier.Option.Protocol.Name()} rules already");
        foreach (Rule rule in specifier.Rules)
        {
            if (delete)
                Delete(in rule);
            else
                Add(in rule);
        }
    }

    public bool Has(IpProtocol protocol)
    {
        foreach (ref readonly Rule rule in Rules)
        {
            if (rule.Protocol == protocol)
                return true;
        }

        return false;
    }
}
