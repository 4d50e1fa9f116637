using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;

namespace Pesto.Linux;

/// <summary>Sockets as the kernel lists them by sock_diag(7): only the ones that are asked for, in binary.</summary>
public sealed unsafe class SocketDiagnosis : ISocketList
{
    const byte Udp = 17;

    readonly NetlinkDump _dump;

    internal SocketDiagnosis(int fd) => _dump = new(fd);

    /// <summary>Opens the list if the kernel can give it, for either protocol.</summary>
    public static Result Open([NotNullWhen(true)] out SocketDiagnosis? list)
    {
        list = null;
        Result socket = NetlinkDump.Open(InetDiagnosis.NetlinkProtocol);
        if (!socket.Ok)
            return socket;
        SocketDiagnosis opened = new(socket.Value);
        foreach (byte protocol in (ReadOnlySpan<byte>)[6, Udp])
        {
            Result tried = opened.Begin(protocol, SocketAddress.V4);
            while (tried.Ok && ((tried = opened.Next(out _)) is { Ok: true, Value: > 0 } || tried.Is(Errno.EAGAIN)))
                tried = default;

            if (tried.Ok)
                continue;
            Descriptors.Close(socket.Value);
            return tried;
        }

        list = opened;
        return socket;
    }

    public Result Begin(byte protocol, ushort family)
    {
        Span<byte> request = stackalloc byte[InetDiagnosis.ByFamilySize];
        request.Clear();
        request[0] = (byte)family;
        request[1] = protocol;
        BitConverter.TryWriteBytes(request[4..], 1u << (protocol == Udp ? InetDiagnosis.Closed : InetDiagnosis.Listen));
        return _dump.Begin(InetDiagnosis.ByFamily, request);
    }

    public Result Next(out BoundSocket socket)
    {
        socket = default;
        while (true)
        {
            Result next = _dump.Next(out byte* message, out int size);
            if (next is not { Ok: true, Value: > 0 })
                return next;
            if (size < InetDiagnosis.MessageSize)
                continue;
            Take(message, size, out socket);
            return next;
        }
    }

    static void Take(byte* message, int size, out BoundSocket socket)
    {
        socket = default;
        socket.Port = BinaryPrimitives.ReverseEndianness(*(ushort*)(message + InetDiagnosis.PortAt));
        socket.Interface = *(uint*)(message + InetDiagnosis.InterfaceAt);
        if (message[0] == SocketAddress.V4)
        {
            socket.Address = Address.FromV4(BinaryPrimitives.ReverseEndianness(*(uint*)(message + InetDiagnosis.AddressAt)));
            return;
        }

        socket.Address = Address.Read(new ReadOnlySpan<byte>(message + InetDiagnosis.AddressAt, Address.Size));
        // struct nlattr: length, type, 16 bits each; padded to 4 bytes.
        for (int i = InetDiagnosis.MessageSize; i + 4 < size; i += (Math.Max((int)Unsafe.ReadUnaligned<ushort>(message + i), 4) + 3) & ~3)
        {
            if (Unsafe.ReadUnaligned<ushort>(message + i + 2) == InetDiagnosis.V6OnlyAttribute)
                socket.V6Only = message[i + 4] != 0;
        }
    }
}
