using Pesto.Rules;

namespace Pesto.Protocol;

/// <summary>
/// Writes what holds tables, in the order of the calls: a server's listing (hello, pifs, end) or a client's update
/// (tables, end). Version 1 has no place for target addresses, which must then be none.
/// </summary>
public ref struct TablesWriter(Span<byte> to, uint version = Wire.Version)
{
    readonly Span<byte> _to = to;

    /// <summary>Bytes written.</summary>
    public int Length { get; private set; }

    public void Hello()
    {
        Wire.WriteHello(_to[Length..], version);
        Length += Wire.HelloSize;
    }

    /// <summary>A pif of a listing.</summary>
    public void Pif(byte number, string name, Capabilities capabilities, scoped ReadOnlySpan<Rule> rules)
    {
        Wire.WritePif(_to[Length..], number, name, capabilities, rules.Length);
        Length += Wire.PifSize;
        Rules(rules);
    }

    /// <summary>A pif's table in an update.</summary>
    public void Table(byte pif, scoped ReadOnlySpan<Rule> rules)
    {
        Wire.WriteTable(_to[Length..], pif, rules.Length);
        Length += Wire.TableSize;
        Rules(rules);
    }

    public void End() => _to[Length++] = Wire.End;

    void Rules(scoped ReadOnlySpan<Rule> rules)
    {
        foreach (ref readonly Rule rule in rules)
        {
            Wire.WriteRule(_to[Length..], in rule, version);
            Length += Wire.RuleSizeOf(version);
        }
    }
}
