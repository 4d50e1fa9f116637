using Pesto.Linux;

namespace Pesto.Rules;

/// <summary>Ports to listen on, and where they go: <paramref name="To"/> is the target port of the first of them.</summary>
readonly record struct PortItem(PortRange Ports, ushort To, Address Target);

/// <summary>The comma-separated items of a specifier, before they become rules.</summary>
sealed class PortItems
{
    public List<PortItem> Ranges { get; } = [];

    public PortSet Excluded { get; } = new();

    /// <summary>"auto" is among them.</summary>
    public bool IsScan { get; private set; }

    /// <summary>The target that the last "all" gave, or "::". It counts only if there is no range.</summary>
    public Address AllTarget { get; private set; }

    public static PortItems Parse(ReadOnlySpan<char> text)
    {
        PortItems items = new();
        for (int comma = 0; comma >= 0; text = text[(comma + 1)..])
        {
            comma = text.IndexOf(',');
            items.ParseItem(comma < 0 ? text : text[..comma]);
        }

        return items;
    }

    void ParseItem(ReadOnlySpan<char> item)
    {
        if (item.IsEmpty)
            throw new RuleException("a port is missing");
        if (item is "auto")
        {
            IsScan = true;
        }
        else if (item is "all" || item.StartsWith("all:"))
        {
            AllTarget = item.Length == 3 ? Address.Any : ParseAddress(item[4..]);
        }
        else if (item[0] == '~')
        {
            Excluded.Add(ParseRange(item[1..], item));
        }
        else if (item is "none")
        {
            throw new RuleException("\"none\" can only stand alone");
        }
        else
        {
            Ranges.Add(ParseItemWithTarget(item));
        }
    }

    static PortItem ParseItemWithTarget(ReadOnlySpan<char> item)
    {
        int colon = item.IndexOf(':');
        if (colon < 0)
        {
            PortRange alone = ParseRange(item, item);
            return new(alone, alone.First, Address.Any);
        }

        PortRange ports = ParseRange(item[..colon], item);
        ReadOnlySpan<char> target = item[(colon + 1)..];
        if (TryParseAddress(target, out Address address))
            return new(ports, ports.First, address);
        int slash = target.IndexOf('/');
        if (slash >= 0)
            address = ParseAddress(target[..slash]);
        PortRange to = ParseRange(target[(slash + 1)..], item);
        if (to.Count != ports.Count)
            throw new RuleException($"{Ports(ports)} can't go to {Ports(to)}");
        return new(ports, to.First, address);
    }

    static string Ports(PortRange range) => range.Count == 1 ? $"port {range.First}" : $"the {range.Count} ports {range}";

    static Address ParseAddress(ReadOnlySpan<char> text) =>
        TryParseAddress(text, out Address address) ? address : throw new RuleException($"\"{text}\" is no address");

    /// <summary>Reads an address, with or without brackets around it.</summary>
    public static bool TryParseAddress(ReadOnlySpan<char> text, out Address address)
    {
        if (text.Length > 2 && text[0] == '[' && text[^1] == ']')
            text = text[1..^1];
        return Address.TryParse(text, out address);
    }

    static PortRange ParseRange(ReadOnlySpan<char> text, ReadOnlySpan<char> item)
    {
        ReadOnlySpan<char> rest = text;
        ushort first = ParsePort(ref rest, item);
        ushort last = first;
        if (!rest.IsEmpty && rest[0] == '-')
        {
            rest = rest[1..];
            last = ParsePort(ref rest, item);
        }

        if (!rest.IsEmpty)
            throw NotPorts(item);
        if (first > last)
            throw new RuleException($"the range {first}-{last} ends before it begins");
        return new(first, last);
    }

    static RuleException NotPorts(ReadOnlySpan<char> item) => new($"\"{item}\" is neither ports nor an address and ports");

    /// <summary>Reads a number as strtoul(3) does, in base 10: after white space and a plus sign.</summary>
    static ushort ParsePort(ref ReadOnlySpan<char> rest, ReadOnlySpan<char> item)
    {
        rest = rest.TrimStart(" \t\n\v\f\r");
        if (!rest.IsEmpty && rest[0] == '+')
            rest = rest[1..];
        int length = 0;
        int port = 0;
        for (; length < rest.Length && char.IsAsciiDigit(rest[length]); length++)
        {
            port = port * 10 + (rest[length] - '0');
            if (port > ushort.MaxValue)
                throw new RuleException($"\"{item}\" has a port beyond {ushort.MaxValue}");
        }

        if (length == 0)
            throw rest.IsEmpty ? new RuleException($"\"{item}\" lacks a port number") : NotPorts(item);
        rest = rest[length..];
        return (ushort)port;
    }
}
