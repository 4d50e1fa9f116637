using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Pesto.Linux;

/// <summary>struct mmsghdr.</summary>
[StructLayout(LayoutKind.Sequential)]
unsafe struct MessageHeader
{
    public Inner Message;

    /// <summary>Bytes received or sent.</summary>
    public uint Length;

    /// <summary>struct msghdr.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct Inner
    {
        public SocketAddress* Name;
        public uint NameLength;
        public IoVector* Vectors;
        public nuint VectorCount;
        public byte* Control;
        public nuint ControlLength;
        public int Flags;
    }
}

/// <summary>struct iovec.</summary>
[StructLayout(LayoutKind.Sequential)]
unsafe struct IoVector
{
    public byte* Base;
    public nuint Length;
}

/// <summary>struct cmsghdr: what precedes each control message; its data follows at once.</summary>
[StructLayout(LayoutKind.Sequential)]
unsafe struct ControlHeader
{
    public const int Ip = 0, Udp = 17, Ipv6 = 41;
    public const int IpPacketInfo = 8, Ipv6PacketInfo = 50, SegmentSize = 103, Gro = 104;

    /// <summary>Of header and data, in bytes.</summary>
    public nuint Length;
    public int Level;
    public int Type;

    /// <summary>The bytes from one control message to the next.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static int Space(nuint length) => (int)((length + (nuint)sizeof(nuint) - 1) & ~((nuint)sizeof(nuint) - 1));
}
