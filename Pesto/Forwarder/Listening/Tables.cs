using Pesto.Forwarder.Namespace;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Listening;

/// <summary>
/// The rules of every pif, twice: the active tables, which are in force, and the shadow tables, which are being
/// received, or which were in force before until their sockets are gone. Which is which is one number.
/// </summary>
public sealed unsafe class Tables
{
    readonly NativeArray<Rule> _rules = new(2 * PifCount * RuleCheck.MostRules);
    readonly NativeArray<int> _counts = new(2 * PifCount);
    readonly PifEntry[] _pifs;

    /// <summary>The most pifs that there can be; each has a place of its own, whether it is offered or not.</summary>
    public const int PifCount = 2;

    public Tables(params PifEntry[] pifs) => _pifs = pifs;

    /// <param name="Number">The pif's number in the control protocol.</param>
    /// <param name="Name">ASCII.</param>
    /// <param name="Listens">Where its listening sockets are.</param>
    /// <param name="Connects">Where its targets are.</param>
    public sealed record PifEntry(byte Number, string Name, Capabilities Capabilities, NetworkNamespace Listens, NetworkNamespace Connects)
    {
        /// <summary>From which addresses clients come to the targets.</summary>
        public ClientAddress Clients { get; init; } = ClientAddress.Unchanged;

        /// <summary>What clients from a network may come to by "auto" rules; null for everything.</summary>
        public LoopbackServices? LoopbackServices { get; init; }

        /// <summary>Whether a client may come to a target by this rule: not by an "auto" rule to what is bound to loopback alone, unless it is on loopback too.</summary>
        public bool Allows(in Rule rule, in SocketAddress client, in SocketAddress target) =>
            !rule.IsScan || LoopbackServices is null || client.Address.IsLoopback || !target.Address.IsLoopback
            || LoopbackServices.AreForOthers(rule.Protocol, target.Address.IsV4, target.Port);
    }

    /// <summary>The pifs offered, in the order in which they are listed; their place here is their index.</summary>
    public ReadOnlySpan<PifEntry> Pifs => _pifs;

    /// <summary>0 or 1: which of the two sets is in force.</summary>
    public int Active { get; private set; }

    public int Shadow => 1 - Active;

    public ReadOnlySpan<Rule> Rules(int pif, int set) => new(Place(pif, set), _counts[(set * PifCount) + pif]);

    public Rule* Rule(int pif, int set, int index) => Place(pif, set) + index;

    Rule* Place(int pif, int set) => _rules.Pointer + (((set * PifCount) + pif) * RuleCheck.MostRules);

    public void Switch() => Active = 1 - Active;

    public void ClearShadow()
    {
        for (int pif = 0; pif < _pifs.Length; pif++)
            _counts[(Shadow * PifCount) + pif] = 0;
    }

    /// <summary>Adds a rule to a shadow table if it is valid there.</summary>
    /// <param name="conflicting">The position of the rule it conflicts with, or -1.</param>
    public RuleFault AddToShadow(int pif, in Rule rule, out int conflicting)
    {
        conflicting = -1;
        RuleFault fault = RuleCheck.Check(in rule, _pifs[pif].Capabilities);
        if (fault == RuleFault.None)
            fault = RuleCheck.CheckAgainst(Rules(pif, Shadow), in rule, out conflicting);
        if (fault != RuleFault.None)
            return fault;
        ref int count = ref _counts[(Shadow * PifCount) + pif];
        *Rule(pif, Shadow, count++) = rule;
        return RuleFault.None;
    }

    /// <summary>The index of the pif that has this number in the protocol, or -1.</summary>
    public int IndexOf(byte number)
    {
        for (int i = 0; i < _pifs.Length; i++)
        {
            if (_pifs[i].Number == number)
                return i;
        }

        return -1;
    }

    /// <summary>How many listening sockets a set of tables wants, whatever listens in the target: those of "auto" rules don't count.</summary>
    public int SocketsWanted(int set)
    {
        int wanted = 0;
        for (int pif = 0; pif < _pifs.Length; pif++)
        {
            foreach (ref readonly Rule rule in Rules(pif, set))
                wanted += rule.IsScan ? 0 : rule.Ports;
        }

        return wanted;
    }
}
