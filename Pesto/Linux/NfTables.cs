using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace Pesto.Linux;

/// <summary>
/// One batch of changes to the kernel's packet filter, nf_tables (linux/netfilter/nf_tables.h): tables with sets, chains, and rules made of
/// expressions that load, compare and store. All of it happens or nothing does.
/// </summary>
public sealed class NfTables
{
    const ushort Subsystem = 10, BatchBegin = 0x10, BatchEnd = 0x11;
    const byte NewTable = 0, GetTable = 1, DeleteTable = 2, NewChain = 3, NewRule = 6, NewSet = 9;

    /// <summary>NFPROTO_INET: IPv4 and IPv6.</summary>
    const byte BothFamilies = 1;

    /// <summary>struct nfgenmsg: family, version, 16 bits.</summary>
    const int FixedSize = 4;

    const ushort ListElement = 1, DataValue = 1;

    const ushort TableNameAttribute = 1;

    /// <summary>The kernel's registers of four bytes each are numbered from 8 on.</summary>
    const uint FirstRegister = 8;

    readonly NetlinkMessages _messages = new();
    uint _sets;
    string _table = "";
    string _chain = "";

    /// <summary>Where in a packet's way a chain is asked.</summary>
    public enum Hook
    {
        /// <summary>Packets for this host.</summary>
        Input = 1,

        /// <summary>Packets of this host's own.</summary>
        Output = 3,
    }

    /// <summary>What is loaded or stored beside the packet's bytes (NFT_META_*).</summary>
    public enum Meta : uint
    {
        Mark = 3,
        InputInterface = 4,

        /// <summary>2 for IPv4, 10 for IPv6.</summary>
        Family = 15,

        /// <summary>As in the IP header, behind IPv6's extensions.</summary>
        TransportProtocol = 16,
    }

    /// <summary>Where in a packet bytes are loaded from.</summary>
    public enum Header : uint
    {
        Network = 1,
        Transport = 2,
    }

    /// <summary>What is done with the element of a set that is in the registers.</summary>
    public enum SetChange : uint
    {
        /// <summary>It is added, or, if it is there, lives anew.</summary>
        Update = 1,

        /// <summary>Since Linux 5.6.</summary>
        Delete = 2,
    }

    /// <summary>Begins a batch with a new table, to which everything that follows belongs.</summary>
    /// <param name="owned">Only this socket can change it, and closing this socket removes it. Since Linux 5.12.</param>
    public void BeginTable(string name, bool owned)
    {
        const ushort FlagsAttribute = 2;
        const uint Owner = 2;
        _messages.Clear();
        _sets = 0;
        _table = name;
        BeginBatch();
        Begin(NewTable, NetlinkMessages.Create | NetlinkMessages.Exclusive);
        _messages.AddText(TableNameAttribute, name);
        if (owned)
            _messages.AddBigEndian(FlagsAttribute, Owner);
    }

    /// <summary>Adds a set that packets fill.</summary>
    /// <param name="keyTypes">What its keys consist of, for nft(8) to list it: numbers of its types.</param>
    /// <param name="keyLengths">How many bytes each part of a key has.</param>
    /// <param name="size">The most elements.</param>
    /// <param name="timeout">Milliseconds after which an element goes that is not updated.</param>
    public void AddSet(string name, ReadOnlySpan<uint> keyTypes, ReadOnlySpan<uint> keyLengths, uint size, long timeout)
    {
        const ushort Table = 1, Name = 2, Flags = 3, KeyType = 4, KeyLength = 5, Description = 9, Id = 10, Timeout = 11;
        const ushort DescribesSize = 1, DescribesParts = 2, PartLength = 1;
        const uint HasTimeout = 0x10, FilledByPackets = 0x20, Concatenated = 0x80;
        const int BitsOfType = 6;
        uint type = 0, length = 0;
        foreach (uint part in keyTypes)
            type = (type << BitsOfType) | part;
        foreach (uint part in keyLengths)
            length += (part + 3) & ~3u;
        Begin(NewSet, NetlinkMessages.Create | NetlinkMessages.Exclusive);
        _messages.AddText(Table, _table);
        _messages.AddText(Name, name);
        _messages.AddBigEndian(Flags, HasTimeout | FilledByPackets | Concatenated);
        _messages.AddBigEndian(KeyType, type);
        _messages.AddBigEndian(KeyLength, length);
        _messages.AddBigEndian(Id, ++_sets);
        _messages.AddLongBigEndian(Timeout, (ulong)timeout);
        int description = _messages.BeginNest(Description);
        _messages.AddBigEndian(DescribesSize, size);
        int parts = _messages.BeginNest(DescribesParts);
        foreach (uint part in keyLengths)
        {
            int element = _messages.BeginNest(ListElement);
            _messages.AddBigEndian(PartLength, part);
            _messages.EndNest(element);
        }

        _messages.EndNest(parts);
        _messages.EndNest(description);
    }

    /// <summary>Begins a chain, to which the rules that follow belong.</summary>
    /// <param name="reroutes">A packet whose mark has changed in it is routed anew.</param>
    /// <param name="priority">Chains of one hook are asked in this order, the lowest first; -300 is before connection tracking.</param>
    public void BeginChain(string name, Hook hook, bool reroutes, int priority)
    {
        const ushort Table = 1, Name = 3, HookAttribute = 4, Type = 7, HookNumber = 1, HookPriority = 2;
        _chain = name;
        Begin(NewChain, NetlinkMessages.Create | NetlinkMessages.Exclusive);
        _messages.AddText(Table, _table);
        _messages.AddText(Name, name);
        _messages.AddText(Type, reroutes ? "route" : "filter");
        int nest = _messages.BeginNest(HookAttribute);
        _messages.AddBigEndian(HookNumber, (uint)hook);
        _messages.AddBigEndian(HookPriority, (uint)priority);
        _messages.EndNest(nest);
    }

    /// <summary>Adds a rule: its expressions are carried out in turn until one does not match.</summary>
    public void AddRule(Action<Expressions> expressions)
    {
        const ushort Table = 1, Chain = 2, ExpressionList = 4;
        const ushort AtTheEnd = 0x800;
        Begin(NewRule, NetlinkMessages.Create | AtTheEnd);
        _messages.AddText(Table, _table);
        _messages.AddText(Chain, _chain);
        int nest = _messages.BeginNest(ExpressionList);
        expressions(new(_messages));
        _messages.EndNest(nest);
    }

    /// <summary>Ends the batch and has the kernel carry it out.</summary>
    public Result Commit(NetlinkSocket socket)
    {
        EndBatch();
        return socket.Do(_messages);
    }

    /// <summary>The batch that removes a table with all that is in it.</summary>
    public static NetlinkMessages Removal(string name)
    {
        NfTables batch = new();
        batch.BeginBatch();
        batch.Begin(DeleteTable, 0);
        batch._messages.AddText(TableNameAttribute, name);
        batch.EndBatch();
        return batch._messages;
    }

    /// <summary>The tables for both families in the calling thread's network namespace, as far as they can be listed.</summary>
    public static unsafe List<string> Names()
    {
        List<string> names = [];
        Result socket = NetlinkDump.Open(NetlinkSocket.Netfilter);
        if (!socket.Ok)
            return names;
        NetlinkDump list = new(socket.Value);
        Result next = list.Begin((Subsystem << 8) | GetTable, [BothFamilies, 0, 0, 0]);
        while (next.Ok || next.Is(Errno.EAGAIN))
        {
            next = list.Next(out byte* table, out int size);
            if (next is { Ok: true, Value: 0 })
                break;
            byte* name = next.Ok ? NetlinkAttribute.Find(table, size, FixedSize, TableNameAttribute, 1) : null;
            if (name != null)
                names.Add(Marshal.PtrToStringUTF8((nint)name) ?? "");
        }

        Descriptors.Close(socket.Value);
        return names;
    }

    void Begin(byte type, ushort flags)
    {
        ReadOnlySpan<byte> body = [BothFamilies, 0, 0, 0];
        _messages.Begin((ushort)((Subsystem << 8) | type), (ushort)(flags | NetlinkMessages.Acknowledge), body);
    }

    void BeginBatch() => Delimit(BatchBegin);

    void EndBatch() => Delimit(BatchEnd);

    void Delimit(ushort type)
    {
        Span<byte> body = stackalloc byte[4];
        body.Clear();
        BinaryPrimitives.WriteUInt16BigEndian(body[2..], Subsystem);
        _messages.Begin(type, 0, body);
    }

    /// <summary>
    /// The expressions of a rule. They work on registers of four bytes, numbered here from 0 to 15; a value of more bytes takes those that
    /// follow, and one of fewer has zeros behind it.
    /// </summary>
    public sealed class Expressions
    {
        readonly NetlinkMessages _messages;

        internal Expressions(NetlinkMessages messages) => _messages = messages;

        public Expressions Load(Meta what, uint register)
        {
            const ushort Destination = 1, Key = 2;
            Nest nest = Begin("meta");
            _messages.AddBigEndian(Destination, FirstRegister + register);
            _messages.AddBigEndian(Key, (uint)what);
            return End(nest);
        }

        public Expressions Store(Meta what, uint register)
        {
            const ushort Key = 2, Source = 3;
            Nest nest = Begin("meta");
            _messages.AddBigEndian(Key, (uint)what);
            _messages.AddBigEndian(Source, FirstRegister + register);
            return End(nest);
        }

        /// <summary>Loads bytes of the packet.</summary>
        public Expressions Load(Header header, uint offset, uint length, uint register)
        {
            const ushort Destination = 1, Base = 2, Offset = 3, Length = 4;
            Nest nest = Begin("payload");
            _messages.AddBigEndian(Destination, FirstRegister + register);
            _messages.AddBigEndian(Base, (uint)header);
            _messages.AddBigEndian(Offset, offset);
            _messages.AddBigEndian(Length, length);
            return End(nest);
        }

        /// <summary>Goes on if what is in the registers is the same.</summary>
        public Expressions IfEqual(uint register, ReadOnlySpan<byte> value)
        {
            const ushort Source = 1, Operation = 2, Data = 3;
            Nest nest = Begin("cmp");
            _messages.AddBigEndian(Source, FirstRegister + register);
            _messages.AddBigEndian(Operation, 0);
            AddData(Data, value);
            return End(nest);
        }

        /// <summary>The same for a number in the machine's byte order, as meta expressions load.</summary>
        public Expressions IfEqual(uint register, uint value)
        {
            Span<byte> bytes = stackalloc byte[sizeof(uint)];
            MemoryMarshal.Write(bytes, value);
            return IfEqual(register, bytes);
        }

        /// <summary>Puts a number into a register, in the machine's byte order.</summary>
        public Expressions Set(uint register, uint value)
        {
            const ushort Destination = 1, Data = 2;
            Span<byte> bytes = stackalloc byte[sizeof(uint)];
            MemoryMarshal.Write(bytes, value);
            Nest nest = Begin("immediate");
            _messages.AddBigEndian(Destination, FirstRegister + register);
            AddData(Data, bytes);
            return End(nest);
        }

        /// <summary>Drops the packet.</summary>
        public Expressions Drop()
        {
            const ushort Destination = 1, Data = 2, Verdict = 2, Code = 1;
            Nest nest = Begin("immediate");
            _messages.AddBigEndian(Destination, 0);
            int data = _messages.BeginNest(Data);
            int verdict = _messages.BeginNest(Verdict);
            _messages.AddBigEndian(Code, 0);
            _messages.EndNest(verdict);
            _messages.EndNest(data);
            return End(nest);
        }

        /// <summary>Goes on if the registers from this one on hold an element of the set.</summary>
        public Expressions IfIn(string set, uint register)
        {
            const ushort Name = 1, Source = 2;
            Nest nest = Begin("lookup");
            _messages.AddText(Name, set);
            _messages.AddBigEndian(Source, FirstRegister + register);
            return End(nest);
        }

        /// <summary>Changes a set by the element that the registers from this one on hold; goes on if that was possible.</summary>
        public Expressions Change(SetChange how, string set, uint register)
        {
            const ushort Name = 1, Operation = 3, Key = 4;
            Nest nest = Begin("dynset");
            _messages.AddText(Name, set);
            _messages.AddBigEndian(Operation, (uint)how);
            _messages.AddBigEndian(Key, FirstRegister + register);
            return End(nest);
        }

        void AddData(ushort type, ReadOnlySpan<byte> value)
        {
            int data = _messages.BeginNest(type);
            _messages.Add(DataValue, value);
            _messages.EndNest(data);
        }

        readonly record struct Nest(int Element, int Data);

        Nest Begin(string kind)
        {
            const ushort Name = 1, Data = 2;
            int element = _messages.BeginNest(ListElement);
            _messages.AddText(Name, kind);
            return new(element, _messages.BeginNest(Data));
        }

        Expressions End(Nest nest)
        {
            _messages.EndNest(nest.Data);
            _messages.EndNest(nest.Element);
            return this;
        }
    }
}
