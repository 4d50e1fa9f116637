using Pesto.Forwarder.Listening;
using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Forwarder.Control;

/// <summary>Turns the bytes of an update into the shadow tables, as they come, and checks each rule when it is complete.</summary>
public sealed class UpdateReader(Tables tables)
{
    int _pif;
    uint _rulesToCome;

    public enum Progress
    {
        /// <summary>Valid as far as it goes.</summary>
        NeedsMore,

        /// <summary>The final 0 was read; the shadow tables hold all that the update says.</summary>
        Complete,

        /// <summary><see cref="Reason"/> tells why.</summary>
        Invalid,
    }

    /// <summary>Why the update is invalid, for people.</summary>
    public string Reason { get; private set; } = "";

    /// <summary>The number of the pif that the reason is about, as the client sent it.</summary>
    public byte FaultPif { get; private set; }

    /// <summary>The position of the rule that the reason is about, counted over all of the pif's, or <see cref="VerdictMessage.NoRule"/>.</summary>
    public uint FaultRule { get; private set; }

    /// <summary>Empties the shadow tables and begins to read an update.</summary>
    public void Begin()
    {
        _rulesToCome = 0;
        tables.ClearShadow();
    }

    /// <summary>Takes in what is complete, and says how many bytes that was; the rest is to be given again, with more behind it.</summary>
    public Progress Take(ReadOnlySpan<byte> bytes, out int taken)
    {
        taken = 0;
        while (true)
        {
            ReadOnlySpan<byte> rest = bytes[taken..];
            if (_rulesToCome > 0)
            {
                if (rest.Length < Wire.RuleSize)
                    return Progress.NeedsMore;
                if (!TakeRule(Wire.ReadRule(rest)))
                    return Progress.Invalid;
                taken += Wire.RuleSize;
                _rulesToCome--;
                continue;
            }

            if (rest.Length == 0)
                return Progress.NeedsMore;
            if (rest[0] == Wire.End)
            {
                taken++;
                return Progress.Complete;
            }

            _pif = tables.IndexOf(rest[0]);
            if (_pif < 0)
                return Fail(rest[0], VerdictMessage.NoRule, $"there is no pif {rest[0]}");
            if (rest.Length < Wire.TableSize)
                return Progress.NeedsMore;
            (_, _rulesToCome) = Wire.ReadTable(rest);
            if (_rulesToCome > RuleCheck.MostRules)
                return Fail(rest[0], VerdictMessage.NoRule, $"{tables.Pifs[_pif].Name}: {_rulesToCome} rules, at most {RuleCheck.MostRules} are possible");
            taken += Wire.TableSize;
        }
    }

    bool TakeRule(in Rule rule)
    {
        RuleFault fault = tables.AddToShadow(_pif, in rule, out int conflicting);
        if (fault == RuleFault.None)
            return true;
        Tables.PifEntry entry = tables.Pifs[_pif];
        int position = tables.Rules(_pif, tables.Shadow).Length;
        string with = conflicting < 0 ? "" : $" ({RuleText.Text(in tables.Rules(_pif, tables.Shadow)[conflicting])})";
        Fail(entry.Number, (uint)position, $"{entry.Name} {RuleText.Text(in rule)}: {fault.Text()}{with}");
        return false;
    }

    Progress Fail(byte pifNumber, uint rule, string reason)
    {
        FaultPif = pifNumber;
        FaultRule = rule;
        Reason = reason;
        return Progress.Invalid;
    }
}
