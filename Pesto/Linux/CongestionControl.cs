using System.Runtime.CompilerServices;

namespace Pesto.Linux;

/// <summary>
/// The name of a TCP congestion control algorithm, see tcp(7). One that paces what it sends (bbr) does so even where both
/// ends are on this host and there is no network to spare: a stream then gets no more than two thirds of what it could.
/// </summary>
public struct CongestionControl
{
    const int IpProtoTcp = 6, TcpCongestion = 13;

    const int MostBytes = 16;

    [InlineArray(MostBytes)]
    struct Bytes
    {
        byte _first;
    }

    Bytes _name;

    /// <summary>No algorithm: what a system without TCP_CONGESTION has.</summary>
    public readonly bool IsNone => _name[0] == 0;

    /// <summary>Whether it sends by a clock.</summary>
    public readonly bool Paces => _name[0] == 'b' && _name[1] == 'b' && _name[2] == 'r';

    /// <summary>What a socket has: at first, what the system's settings say.</summary>
    public static unsafe CongestionControl Of(int fd)
    {
        CongestionControl result = default;
        uint length = MostBytes;
        return Libc.getsockopt(fd, IpProtoTcp, TcpCongestion, &result, &length) == 0 ? result : default;
    }

    /// <summary>The one that every kernel has and any user may choose. It sends as fast as the other end receives.</summary>
    public static CongestionControl Reno
    {
        get
        {
            CongestionControl result = default;
            "reno"u8.CopyTo(result._name);
            return result;
        }
    }

    /// <summary>Has a socket use it. Connections that are accepted have it from their listening socket.</summary>
    public unsafe Result ApplyTo(int fd)
    {
        fixed (CongestionControl* p = &this)
            return Result.Of(Libc.setsockopt(fd, IpProtoTcp, TcpCongestion, p, MostBytes));
    }
}
