using System.Buffers.Binary;
using System.Text;
using Pesto.Rules;

namespace Pesto.Protocol;

/// <summary>A pif as its server lists it, with its table.</summary>
public sealed class PifState(byte number, string name, Capabilities capabilities)
{
    public byte Number => number;

    public string Name => name;

    public RuleTable Table { get; } = new(capabilities);
}

/// <summary>
/// What a server says when a client connects: its version and the tables of all its pifs. The same, with its tables
/// edited, is what the client sends back.
/// </summary>
public sealed class ServerState(uint version)
{
    /// <summary>More than a server has. With it, and the most rules that a table has, a listing can't be longer than <see cref="MostBytes"/>.</summary>
    public const int MostPifs = 3;

    public const int MostBytes = Wire.HelloSize + MostPifs * (Wire.PifSize + RuleCheck.MostRules * Wire.RuleSize) + 1;

    public uint Version => version;

    public List<PifState> Pifs { get; } = [];

    public bool HasTransactions => Pifs.Count > 0 && Pifs.TrueForAll(p => (p.Table.Capabilities & Capabilities.Transactions) == Capabilities.Transactions);

    /// <summary>The pif of that number, or null.</summary>
    public PifState? Find(byte number) => Pifs.Find(p => p.Number == number);

    /// <summary>The pif of that name, or null.</summary>
    public PifState? Find(string name) => Pifs.Find(p => p.Name == name);

    /// <summary>The same tables, which stay as they are when these are edited.</summary>
    public ServerState Copy()
    {
        ServerState copy = new(Version);
        foreach (PifState pif in Pifs)
        {
            PifState same = new(pif.Number, pif.Name, pif.Table.Capabilities);
            foreach (ref readonly Rule rule in pif.Table.Rules)
                same.Table.Load(in rule);
            copy.Pifs.Add(same);
        }

        return copy;
    }

    /// <summary>Reads a server's listing.</summary>
    /// <param name="needed">If it is not all there yet: the length that it must have at least. Never over <see cref="MostBytes"/>.</param>
    /// <returns>The state, or null if more bytes are needed.</returns>
    /// <exception cref="ProtocolException">These bytes are no listing, or none that is understood.</exception>
    public static ServerState? Read(ReadOnlySpan<byte> bytes, out int needed)
    {
        needed = Wire.HelloSize;
        if (bytes.Length < needed)
            return null;
        ServerState state = new(ReadHello(bytes));
        int ruleSize = Wire.RuleSizeOf(state.Version);
        int at = needed;
        while (true)
        {
            needed = at + 1;
            if (bytes.Length < needed)
                return null;
            if (bytes[at] == Wire.End)
                return state;
            needed = at + Wire.PifSize;
            if (bytes.Length < needed)
                return null;
            PifState pif = state.ReadPif(bytes[at..], out int rules);
            at = needed;
            needed = at + rules * ruleSize;
            if (bytes.Length < needed)
                return null;
            for (; at < needed; at += ruleSize)
                pif.Table.Load(Wire.ReadRule(bytes[at..], state.Version));
        }
    }

    static uint ReadHello(ReadOnlySpan<byte> bytes)
    {
        if (!bytes.StartsWith(Wire.Magic))
            throw new ProtocolException("this is no control socket of passt, pasta or pesto");
        uint version = BinaryPrimitives.ReadUInt32BigEndian(bytes[8..]);
        if (version is < Wire.OldestVersion or > Wire.Version)
            throw new ProtocolException($"the server speaks version {version} of the protocol; versions {Wire.OldestVersion} to {Wire.Version} are understood");
        uint pifName = BinaryPrimitives.ReadUInt32BigEndian(bytes[12..]);
        uint interfaceName = BinaryPrimitives.ReadUInt32BigEndian(bytes[16..]);
        if (pifName != Wire.PifNameSize || interfaceName != InterfaceName.Size)
            throw new ProtocolException($"the server has names of other sizes ({pifName} and {interfaceName} bytes)");
        return version;
    }

    PifState ReadPif(ReadOnlySpan<byte> bytes, out int rules)
    {
        byte number = bytes[0];
        ReadOnlySpan<byte> name = bytes.Slice(1, Wire.PifNameSize);
        int end = name.IndexOf((byte)0);
        if (end < 0)
            throw new ProtocolException($"the server's name of pif {number} does not end");
        uint capabilities = BinaryPrimitives.ReadUInt32BigEndian(bytes[(1 + Wire.PifNameSize)..]);
        uint count = BinaryPrimitives.ReadUInt32BigEndian(bytes[(1 + Wire.PifNameSize + 4)..]);
        if (count > RuleCheck.MostRules)
            throw new ProtocolException($"the server lists {count} rules for pif {number}; a table holds {RuleCheck.MostRules}");
        PifState pif = new(number, Encoding.UTF8.GetString(name[..end]), (Capabilities)capabilities);
        if (Pifs.Count == MostPifs)
            throw new ProtocolException($"the server lists more than {MostPifs} pifs");
        if (Pifs.Exists(p => p.Number == number || p.Name == pif.Name))
            throw new ProtocolException($"the server lists pif {number} twice");
        Pifs.Add(pif);
        rules = (int)count;
        return pif;
    }

    /// <summary>The listing of these tables, as their server sends it.</summary>
    public byte[] WriteListing()
    {
        byte[] listing = new byte[Wire.HelloSize + SizeOfTables(Wire.PifSize) + 1];
        TablesWriter writer = new(listing, Version);
        writer.Hello();
        foreach (PifState pif in Pifs)
            writer.Pif(pif.Number, pif.Name, pif.Table.Capabilities, pif.Table.Rules);
        writer.End();
        return listing;
    }

    /// <summary>The update that makes these tables the server's, in its version.</summary>
    public byte[] WriteUpdate()
    {
        byte[] update = new byte[SizeOfTables(Wire.TableSize) + 1];
        TablesWriter writer = new(update, Version);
        foreach (PifState pif in Pifs)
            writer.Table(pif.Number, pif.Table.Rules);
        writer.End();
        return update;
    }

    int SizeOfTables(int headSize)
    {
        int size = 0;
        foreach (PifState pif in Pifs)
            size += headSize + (pif.Table.Rules.Length * Wire.RuleSizeOf(Version));
        return size;
    }
}
