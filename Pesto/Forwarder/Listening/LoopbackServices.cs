using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Listening;

/// <summary>
/// Which ports of a target's loopback have a service that others could reach by the target's own addresses too, and which have one that is bound to
/// loopback alone. An "auto" rule names no port, so nobody has asked for the latter to be shown to the network: they are for clients on loopback.
/// Known as of the last scan that was complete; a service on loopback alone counts for one scan more, since a scan can miss one.
/// </summary>
public sealed class LoopbackServices
{
    const int Words = 65536 / 64;

    /// <summary>TCP and UDP, IPv4 and IPv6 each.</summary>
    const int Kinds = 4;

    const int Scans = 3;

    // One bit for each port, of each kind, as seen by the scan under way, the last complete one and the one before.
    readonly NativeArray<ulong> _forOthers = new(Scans * Kinds * Words);
    readonly NativeArray<ulong> _onLoopbackAlone = new(Scans * Kinds * Words);
    int _current;

    /// <summary>A scan begins; what one that was not complete has seen is forgotten.</summary>
    public void Begin()
    {
        Map(_forOthers, 0).Clear();
        Map(_onLoopbackAlone, 0).Clear();
    }

    /// <summary>What it has seen is what there is.</summary>
    public void Complete() => _current = (_current + 1) % Scans;

    /// <summary>A socket that gets what is sent to the loopback of a family.</summary>
    public void Add(IpProtocol protocol, bool isV4, ushort port, bool isOnLoopbackAlone) =>
        Word(isOnLoopbackAlone ? _onLoopbackAlone : _forOthers, 0, protocol, isV4, port) |= Bit(port);

    /// <summary>Whether clients that are not on loopback may come to a port.</summary>
    public bool AreForOthers(IpProtocol protocol, bool isV4, ushort port)
    {
        ulong alone = Word(_onLoopbackAlone, 0, protocol, isV4, port) | Word(_onLoopbackAlone, 1, protocol, isV4, port) | Word(_onLoopbackAlone, 2, protocol, isV4, port);
        return (Word(_forOthers, 1, protocol, isV4, port) & ~alone & Bit(port)) != 0;
    }

    static ulong Bit(ushort port) => 1ul << (port & 63);

    /// <param name="ago">How many complete scans ago; 0 for the one under way.</param>
    int Start(int ago) => (_current + Scans - ago) % Scans * Kinds * Words;

    Span<ulong> Map(NativeArray<ulong> of, int ago) => of.Span.Slice(Start(ago), Kinds * Words);

    ref ulong Word(NativeArray<ulong> of, int ago, IpProtocol protocol, bool isV4, ushort port) =>
        ref of[Start(ago) + (((protocol == IpProtocol.Tcp ? 0 : 2) + (isV4 ? 0 : 1)) * Words) + (port >> 6)];
}
