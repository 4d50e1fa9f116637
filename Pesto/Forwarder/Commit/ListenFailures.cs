using Pesto.Forwarder.Listening;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Commit;

/// <summary>A listening socket that a table wants and that could not be opened: the pif's index, the rule's position, and why.</summary>
public readonly record struct ListenFailure(int Pif, int Rule, ushort Port, Errno Error);

/// <summary>What a transaction could not open. Ports of weak rules don't count, unless such a rule got none at all, which counts once.</summary>
public sealed unsafe class ListenFailures(Tables tables)
{
    const int Most = 1024;

    readonly NativeArray<ListenFailure> _failures = new(Most);

    // Of the weak rule whose ports are being opened: rules come one after the other.
    (int Pif, int Rule, int Count) _weak;

    public int Count { get; private set; }

    /// <summary>The first of them, at most 1,024.</summary>
    public ReadOnlySpan<ListenFailure> First => _failures.Span[..Math.Min(Count, Most)];

    public void Clear()
    {
        Count = 0;
        _weak = default;
    }

    /// <summary>Notes that a rule of the shadow tables lacks a port.</summary>
    public void Add(int pif, int rule, ushort port, Errno error)
    {
        Rule* wanted = tables.Rule(pif, tables.Shadow, rule);
        if (wanted->IsWeak)
        {
            int before = _weak.Pif == pif && _weak.Rule == rule ? _weak.Count : 0;
            _weak = (pif, rule, before + 1);
            if (before + 1 < wanted->Ports)
                return;
            port = wanted->First;
        }

        if (Count < Most)
            _failures[Count] = new(pif, rule, port, error);
        Count++;
    }
}
