using System.Runtime.CompilerServices;

namespace Pesto.Linux;

/// <summary>
/// The name of a TCP congestion control algorithm, see tcp(7). One that paces what it sends (bbr) does so over loopback too, where there is
/// no queue of a network to keep short: a stream there was measured at two thirds of what reno gives.
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

    /// <summary>No name: the kernel has no TCP_CONGESTION.</summary>
    public readonly bool IsNone => _name[0] == 0;

    /// <summary>Whether it is bbr, of whatever version, which sends at a rate of its own.</summary>
    public readonly bool Paces => _name[0] == 'b' && _name[1] == 'b' && _name[2] == 'r';

    /// <summary>What a socket has: until it is set, net.ipv4.tcp_congestion_control of its namespace.</summary>
    public static unsafe CongestionControl Of(int fd)
    {
        CongestionControl result = default;
        uint length = MostBytes;
        return Libc.getsockopt(fd, IpProtoTcp, TcpCongestion, &result, &length) == 0 ? result : default;
    }

    /// <summary>Is in every kernel, and any user may choose it. It does not pace.</summary>
    public static CongestionControl Reno
    {
        get
        {
            CongestionControl result = default;
            "reno"u8.CopyTo(result._name);
            return result;
        }
    }

    /// <summary>Sets it for a socket. Accepted connections inherit it from their listening socket.</summary>
    public unsafe Result ApplyTo(int fd)
    {
        fixed (CongestionControl* p = &this)
            return Result.Of(Libc.setsockopt(fd, IpProtoTcp, TcpCongestion, p, MostBytes));
    }
}
