using Pesto.Linux;

namespace Pesto.Rules;

/// <summary>
/// What stands behind -t, -u, -T or -U, as the rules that it means:
/// <code>
/// none
/// [[ADDRESS][%INTERFACE]/]ITEM[,ITEM]...
///     FIRST[-LAST][:[TARGET/]TOFIRST[-TOLAST]]   these ports
///     FIRST[-LAST]:TARGET                        these ports, to the same ones of an address
///     ~FIRST[-LAST]                              not these
///     all[:TARGET]                               all but the ephemeral ones, as far as they are free
///     auto                                       only while something listens on them in the target
/// </code>
/// ADDRESS and TARGET are IPv4, or IPv6 with or without brackets; "*" or nothing is any address. Exclusions split
/// ranges. If no range is given, "all" is meant. Client and forwarder share this code.
/// </summary>
public sealed class Specifier
{
    static readonly InterfaceName Loopback = InterfaceName.TryParse("lo", out InterfaceName name) ? name : default;

    readonly List<Rule> _rules = [];

    Specifier(PortOption option) => Option = option;

    public PortOption Option { get; }

    /// <summary>"none": there must be no rule of this protocol.</summary>
    public bool IsNone { get; private set; }

    /// <summary>The interface "lo" can't be bound to here: the rules listen on the loopback addresses instead.</summary>
    public bool IsByLoopbackAddress { get; private set; }

    /// <summary>In the order given; none if exclusions leave nothing. Not checked: a table does that when they are added.</summary>
    public IReadOnlyList<Rule> Rules => _rules;

    /// <summary>Reads a specifier.</summary>
    /// <param name="capabilities">Of the table that the rules are meant for: which addresses "any" is, and whether "auto" and interfaces can be had.</param>
    /// <param name="ephemeral">The ports that "all" leaves out.</param>
    /// <exception cref="RuleException">Why the text can't be understood, or what it asks for can't be had.</exception>
    public static Specifier Parse(ReadOnlySpan<char> text, PortOption option, Capabilities capabilities, PortRange ephemeral)
    {
        Specifier result = new(option);
        if (text is "none")
        {
            result.IsNone = true;
            return result;
        }

        Listener listener = new();
        if (TryParseListener(text, out Listener given, out int ports))
        {
            if (option.IsOutbound)
                throw new RuleException("outbound ports listen on loopback, no listening address can be given");
            listener = given;
            text = text[ports..];
        }

        PortItems items = PortItems.Parse(text);
        if (items.IsScan && (capabilities & Capabilities.Scan) == 0)
            throw new RuleException(RuleFault.ScanUnavailable.Text());
        if (option.IsOutbound)
            listener.Interface = Loopback;
        if (listener.Interface.IsEmpty || (capabilities & Capabilities.Interface) != 0)
            result.Expand(items, listener.WithFamilies(capabilities), ephemeral);
        else if (!option.IsOutbound)
            throw new RuleException(RuleFault.InterfaceUnavailable.Text());
        else
            result.ExpandByLoopbackAddress(items, capabilities, ephemeral);
        return result;
    }

    void ExpandByLoopbackAddress(PortItems items, Capabilities capabilities, PortRange ephemeral)
    {
        IsByLoopbackAddress = true;
        if ((capabilities & Capabilities.V4) != 0)
            Expand(items, new Listener { Address = Address.LoopbackV4 }, ephemeral);
        if ((capabilities & Capabilities.V6) != 0)
            Expand(items, new Listener { Address = Address.LoopbackV6 }, ephemeral);
    }

    void Expand(PortItems items, Listener listener, PortRange ephemeral)
    {
        RuleFlags flags = (listener.Address is null ? RuleFlags.DualStack : 0) | (items.IsScan ? RuleFlags.Scan : 0);
        Rule rule = new()
        {
            Address = listener.Address ?? Address.Any,
            Interface = listener.Interface,
            Protocol = Option.Protocol,
            Flags = flags,
        };
        foreach (PortItem item in items.Ranges)
            ExpandRange(rule, item, items.Excluded);
        if (items.Ranges.Count > 0)
            return;

        // "all" skips ports that are taken.
        rule.Flags |= RuleFlags.Weak;
        items.Excluded.Add(ephemeral);
        ExpandRange(rule, new(PortRange.All, PortRange.All.First, items.AllTarget), items.Excluded);
    }

    void ExpandRange(Rule rule, PortItem item, PortSet excluded)
    {
        rule.Target = item.Target;
        int from = item.Ports.First;
        while (excluded.NextGap(item.Ports, ref from, out PortRange gap))
        {
            rule.First = gap.First;
            rule.Last = gap.Last;
            rule.To = (ushort)(item.To + (gap.First - item.Ports.First));
            _rules.Add(rule);
        }
    }

    /// <summary>
    /// Reads what stands before the first slash, if that is a listener: in "80:10.0.0.1/80" it is not, and the slash
    /// belongs to a target.
    /// </summary>
    static bool TryParseListener(ReadOnlySpan<char> text, out Listener listener, out int end)
    {
        listener = default;
        end = text.IndexOf('/') + 1;
        if (end == 0)
            return false;
        ReadOnlySpan<char> address = text[..(end - 1)];
        int percent = address.IndexOf('%');
        ReadOnlySpan<char> name = percent < 0 ? default : address[(percent + 1)..];
        if (percent >= 0)
            address = address[..percent];
        if (!address.IsEmpty && address is not "*")
        {
            if (!PortItems.TryParseAddress(address, out Address parsed))
                return false;
            listener.Address = parsed;
        }

        if (percent >= 0 && !InterfaceName.TryParse(name, out listener.Interface))
            throw new RuleException($"\"{name}\" can't be the name of an interface");
        return true;
    }

    /// <summary>Where to listen; without address on any, of every family there is.</summary>
    struct Listener
    {
        public Address? Address;
        public InterfaceName Interface;

        public readonly Listener WithFamilies(Capabilities capabilities)
        {
            const Capabilities Both = Capabilities.V4 | Capabilities.V6;
            if (Address is not null || (capabilities & Both) == Both)
                return this;
            Address any = (capabilities & Both) == Capabilities.V4 ? Linux.Address.AnyV4 : Linux.Address.Any;
            return new Listener { Address = any, Interface = Interface };
        }
    }
}
