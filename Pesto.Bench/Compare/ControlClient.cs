using System.Buffers.Binary;
using System.Net.Sockets;
using Pesto.Linux;
using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Bench.Compare;

/// <summary>
/// Replaces the tables of a forwarder by version 2 of the control protocol as it is, which pasta and pesto both speak: reads the
/// listing, and sends it back with rules added to the inbound table.
/// </summary>
sealed class ControlClient(string path)
{
    readonly byte[] _buffer = new byte[64 * 1024];

    /// <summary>Replaces what was added before, and returns when the forwarder has hung up.</summary>
    public void Update(ReadOnlySpan<Rule> kept, ReadOnlySpan<Rule> added)
    {
        using Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        socket.ReceiveTimeout = 30_000;
        socket.Connect(new UnixDomainSocketEndPoint(path));
        _ = Listing(socket, out List<byte> pifs);
        int at = 0;
        foreach (byte pif in pifs)
        {
            bool inbound = pif == Pif.Host;
            int rules = inbound ? kept.Length + added.Length : 0;
            Wire.WriteTable(_buffer.AsSpan(at), pif, rules);
            at += Wire.TableSize;
            if (!inbound)
                continue;
            foreach (ref readonly Rule rule in kept)
                Append(in rule, ref at);
            foreach (ref readonly Rule rule in added)
                Append(in rule, ref at);
        }

        _buffer[at++] = Wire.End;
        socket.Send(_buffer.AsSpan(0, at));
        socket.Shutdown(SocketShutdown.Send);
        while (socket.Receive(_buffer) > 0)
        {
        }
    }

    /// <summary>The inbound table.</summary>
    public Rule[] Read()
    {
        using Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        socket.ReceiveTimeout = 30_000;
        socket.Connect(new UnixDomainSocketEndPoint(path));
        return Listing(socket, out _);
    }

    /// <summary>A rule for TCP from loopback to the same ports of the target's loopback.</summary>
    public static Rule Forward(ushort first, ushort last) =>
        new() { Address = Address.LoopbackV4, First = first, Last = last, To = first, Protocol = IpProtocol.Tcp };

    void Append(in Rule rule, ref int at)
    {
        Wire.WriteRule(_buffer.AsSpan(at), in rule);
        at += Wire.RuleSize;
    }

    Rule[] Listing(Socket socket, out List<byte> pifs)
    {
        pifs = [];
        Rule[] inbound = [];
        ReadOnlySpan<byte> hello = Receive(socket, Wire.HelloSize);
        if (!hello[..8].SequenceEqual(Wire.Magic) || BinaryPrimitives.ReadUInt32BigEndian(hello[8..]) != Wire.Version)
            throw new InvalidOperationException($"{path} does not speak version {Wire.Version} of the protocol");
        while (Receive(socket, 1)[0] is not Wire.End and byte pif)
        {
            pifs.Add(pif);
            int count = (int)BinaryPrimitives.ReadUInt32BigEndian(Receive(socket, Wire.PifSize - 1)[(Wire.PifNameSize + 4)..]);
            Rule[] rules = new Rule[count];
            for (int i = 0; i < count; i++)
                rules[i] = Wire.ReadRule(Receive(socket, Wire.RuleSize));
            if (pif == Pif.Host)
                inbound = rules;
        }

        return inbound;
    }

    ReadOnlySpan<byte> Receive(Socket socket, int length)
    {
        for (int have = 0; have < length;)
        {
            int n = socket.Receive(_buffer, have, length - have, SocketFlags.None);
            have += n > 0 ? n : throw new InvalidOperationException($"{path}: the forwarder hung up");
        }

        return _buffer.AsSpan(0, length);
    }
}
