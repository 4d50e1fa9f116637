using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Pesto.Linux;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Control;

/// <summary>A listening TCP socket as the kernel's socket diagnosis tells it (what `ss -ltn` shows, without the price of a process).</summary>
readonly record struct ListeningSocket(Address Address, bool DualStack, int Interface, ushort Port, uint Inode)
{
    const int Listen = 10, V4 = 2, V6 = 10, HeadSize = 16, RequestSize = 72, MessageSize = 72, OnlyV6 = 11;

    /// <summary>What a socket is bound to that the forwarder has made deaf to new connections before it closes it.</summary>
    public const int NoInterface = int.MaxValue;

    public static List<ListeningSocket> In(NetworkNamespace where) => where.Run(() =>
    {
        List<ListeningSocket> all = [];
        Collect(V4, all);
        Collect(V6, all);
        return all;
    });

    /// <summary>Those that a process holds, and nothing else that is there.</summary>
    public static List<ListeningSocket> Of(BackgroundProcess process, NetworkNamespace where)
    {
        HashSet<uint> inodes = [];
        foreach (FileInfo descriptor in new DirectoryInfo($"/proc/{process.Id}/fd").EnumerateFiles())
        {
            if (descriptor.LinkTarget is string target && target.StartsWith("socket:["))
                inodes.Add(uint.Parse(target.AsSpan(8, target.Length - 9)));
        }

        return In(where).FindAll(socket => inodes.Contains(socket.Inode));
    }

    static unsafe void Collect(byte family, List<ListeningSocket> to)
    {
        const int Netlink = 16, Raw = 3, CloseOnExec = 0x80000, SocketDiagnosis = 4, ByFamily = 20, RequestDump = 0x301, Done = 3, Error = 2;
        int fd = Result.Of(Libc.socket(Netlink, Raw | CloseOnExec, SocketDiagnosis)).OrThrow("opening a socket for socket diagnosis");
        try
        {
            // struct nlmsghdr, struct inet_diag_req_v2 (this machine's byte order).
            byte[] request = new byte[RequestSize];
            MemoryMarshal.Write(request, RequestSize);
            MemoryMarshal.Write(request.AsSpan(4), (short)ByFamily);
            MemoryMarshal.Write(request.AsSpan(6), (short)RequestDump);
            request[HeadSize] = family;
            request[HeadSize + 1] = 6;
            MemoryMarshal.Write(request.AsSpan(HeadSize + 4), 1 << Listen);
            Sockets.SendWaiting(fd, request).OrThrow("asking for listening sockets");
            byte[] answer = new byte[64 * 1024];
            while (true)
            {
                int length = Sockets.ReceiveWaiting(fd, answer).OrThrow("listing listening sockets");
                for (ReadOnlySpan<byte> rest = answer.AsSpan(0, length); rest.Length >= HeadSize;)
                {
                    int size = MemoryMarshal.Read<int>(rest);
                    short type = MemoryMarshal.Read<short>(rest[4..]);
                    if (type == Done)
                        return;
                    Assert.True(type != Error, "the kernel refuses to list sockets");
                    to.Add(Read(rest[HeadSize..size]));
                    rest = rest[Math.Min((size + 3) & ~3, rest.Length)..];
                }
            }
        }
        finally
        {
            Descriptors.Close(fd);
        }
    }

    // struct inet_diag_msg: family, state, timer, retransmissions; then struct inet_diag_sockid: ports, addresses, interface, cookie.
    static ListeningSocket Read(ReadOnlySpan<byte> message)
    {
        Address address = message[0] == V4 ? Address.FromV4(BinaryPrimitives.ReadUInt32BigEndian(message[8..])) : Address.Read(message[8..]);
        bool dualStack = false;
        for (ReadOnlySpan<byte> rest = message[MessageSize..]; rest.Length >= 4;)
        {
            ushort size = MemoryMarshal.Read<ushort>(rest);
            if (MemoryMarshal.Read<ushort>(rest[2..]) == OnlyV6)
                dualStack = address.IsAny && rest[4] == 0;
            rest = rest[Math.Min((size + 3) & ~3, rest.Length)..];
        }

        return new(address, dualStack, MemoryMarshal.Read<int>(message[40..]), BinaryPrimitives.ReadUInt16BigEndian(message[4..]), MemoryMarshal.Read<uint>(message[68..]));
    }
}
