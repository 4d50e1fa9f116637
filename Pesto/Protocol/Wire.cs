using System.Buffers.Binary;
using System.Text;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Protocol;

/// <summary>
/// The pieces of the control protocol, versions 1 and 2, as bytes: the hello, the head of a pif's listing, the head
/// of a table in an update, and the rule. All integers are big-endian. Client and server share this code.
/// </summary>
public static class Wire
{
    /// <summary>The newest version spoken, and the one that <c>pesto serve</c> announces.</summary>
    public const uint Version = 2;

    /// <summary>The oldest version spoken by the client: rules without target address.</summary>
    public const uint OldestVersion = 1;

    /// <summary>magic[8], u32 version, u32 size of a pif's name, u32 size of an interface's name.</summary>
    public const int HelloSize = 20;

    /// <summary>The bytes of a pif's name in a listing, zero-filled.</summary>
    public const int PifNameSize = 128;

    /// <summary>In a listing: u8 pif, name, u32 capabilities, u32 number of rules.</summary>
    public const int PifSize = 1 + PifNameSize + 8;

    /// <summary>In an update: u8 pif, u32 number of rules.</summary>
    public const int TableSize = 1 + 4;

    /// <summary>Ends a listing and an update where the next pif's number would be.</summary>
    public const byte End = 0;

    /// <summary>A rule of version 2.</summary>
    public const int RuleSize = 56;

    /// <summary>A rule of version 1: without target address.</summary>
    public const int OldRuleSize = RuleSize - Address.Size;

    public static ReadOnlySpan<byte> Magic => "basil:s\0"u8;

    public static int RuleSizeOf(uint version) => version >= 2 ? RuleSize : OldRuleSize;

    public static void WriteHello(Span<byte> to, uint version = Version)
    {
        Magic.CopyTo(to);
        BinaryPrimitives.WriteUInt32BigEndian(to[8..], version);
        BinaryPrimitives.WriteUInt32BigEndian(to[12..], PifNameSize);
        BinaryPrimitives.WriteUInt32BigEndian(to[16..], InterfaceName.Size);
    }

    /// <summary>Writes the head of a pif's listing; <paramref name="name"/> is ASCII of at most 127 bytes.</summary>
    public static void WritePif(Span<byte> to, byte pif, string name, Capabilities capabilities, int rules)
    {
        to[..PifSize].Clear();
        to[0] = pif;
        Encoding.ASCII.GetBytes(name, to[1..PifNameSize]);
        BinaryPrimitives.WriteUInt32BigEndian(to[(1 + PifNameSize)..], (uint)capabilities);
        BinaryPrimitives.WriteUInt32BigEndian(to[(1 + PifNameSize + 4)..], (uint)rules);
    }

    public static void WriteTable(Span<byte> to, byte pif, int rules)
    {
        to[0] = pif;
        BinaryPrimitives.WriteUInt32BigEndian(to[1..], (uint)rules);
    }

    /// <summary>The number of the pif that a table of an update is for, and how many rules it announces.</summary>
    public static (byte Pif, uint Rules) ReadTable(ReadOnlySpan<byte> from) => (from[0], BinaryPrimitives.ReadUInt32BigEndian(from[1..]));

    /// <summary>Reads a rule as it is, valid or not, of the version's size.</summary>
    public static Rule ReadRule(ReadOnlySpan<byte> from, uint version = Version)
    {
        Rule rule = default;
        rule.Address = Address.Read(from);
        from = from[Address.Size..];
        if (version >= 2)
        {
            rule.Target = Address.Read(from);
            from = from[Address.Size..];
        }

        from[..InterfaceName.Size].CopyTo(rule.Interface);
        from = from[InterfaceName.Size..];
        rule.First = BinaryPrimitives.ReadUInt16BigEndian(from);
        rule.Last = BinaryPrimitives.ReadUInt16BigEndian(from[2..]);
        rule.To = BinaryPrimitives.ReadUInt16BigEndian(from[4..]);
        rule.Protocol = (IpProtocol)from[6];
        rule.Flags = (RuleFlags)from[7];
        return rule;
    }

    /// <summary>Writes a rule in the version's size; version 1 has no place for a target address, which must then be none.</summary>
    public static void WriteRule(Span<byte> to, in Rule rule, uint version = Version)
    {
        rule.Address.Write(to);
        to = to[Address.Size..];
        if (version >= 2)
        {
            rule.Target.Write(to);
            to = to[Address.Size..];
        }

        ((ReadOnlySpan<byte>)rule.Interface).CopyTo(to);
        to = to[InterfaceName.Size..];
        BinaryPrimitives.WriteUInt16BigEndian(to, rule.First);
        BinaryPrimitives.WriteUInt16BigEndian(to[2..], rule.Last);
        BinaryPrimitives.WriteUInt16BigEndian(to[4..], rule.To);
        to[6] = (byte)rule.Protocol;
        to[7] = (byte)rule.Flags;
    }
}
