using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;

namespace Pesto.Linux;

/// <summary>Sockets as the kernel lists them over netlink, sock_diag(7): only the ones that are asked for, in binary.</summary>
public sealed unsafe class SocketDiagnosis : ISocketList
{
    const int Netlink = 16, Raw = 3, NonBlocking = 0x800, CloseOnExec = 0x80000, DiagnosisProtocol = 4;
    const ushort Error = 2, Done = 3, ByFamily = 20;
    const ushort Request = 1, Dump = 0x300;
    const int Listening = 10, Unconnected = 7;
    const byte Udp = 17;

    // struct nlmsghdr: length, type (16 bits), flags (16 bits), sequence, port.
    const int HeadSize = 16;

    // struct inet_diag_req_v2: family, protocol, two bytes, then a mask of states; an id that says nothing here.
    const int RequestSize = HeadSize + 56;

    // struct inet_diag_msg: family first; own port at 4, own address at 8, interface at 40; attributes from 72.
    const int PortAt = 4, AddressAt = 8, InterfaceAt = 40, MessageSize = 72;
    const ushort V6OnlyAttribute = 11;

    // The kernel fills as much of it as it has to say; it never gives part of a message.
    const int BufferSize = 32 * 1024;

    readonly int _fd;
    readonly NativeArray<byte> _buffer = new(BufferSize);
    int _at;
    int _length;
    bool _listing;

    internal SocketDiagnosis(int fd) => _fd = fd;

    /// <summary>Opens the list if the kernel can give it, for either protocol.</summary>
    public static Result Open([NotNullWhen(true)] out SocketDiagnosis? list)
    {
        list = null;
        Result socket = Result.Of(Libc.socket(Netlink, Raw | NonBlocking | CloseOnExec, DiagnosisProtocol));
        if (!socket.Ok)
            return socket;
        SocketDiagnosis opened = new(socket.Value);
        foreach (byte protocol in (ReadOnlySpan<byte>)[6, Udp])
        {
            Result tried = opened.Begin(protocol, SocketAddress.V4);
            while (tried.Ok && (tried = opened.Next(out _)) is { Ok: true, Value: > 0 })
            {
            }

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
        while (_listing && Next(out _).Ok)
        {
        }

        byte* request = stackalloc byte[RequestSize];
        new Span<byte>(request, RequestSize).Clear();
        *(uint*)request = RequestSize;
        *(ushort*)(request + 4) = ByFamily;
        *(ushort*)(request + 6) = Request | Dump;
        request[HeadSize] = (byte)family;
        request[HeadSize + 1] = protocol;
        *(uint*)(request + HeadSize + 4) = 1u << (protocol == Udp ? Unconnected : Listening);
        _at = _length = 0;
        Result sent = Sockets.Send(_fd, request, RequestSize);
        _listing = sent.Ok;
        return sent;
    }

    public Result Next(out BoundSocket socket)
    {
        socket = default;
        while (_listing)
        {
            if (_at + HeadSize > _length)
            {
                // The kernel goes on with the list whenever it is read from: there is always something, up to its end.
                Result received = Sockets.Receive(_fd, _buffer.Pointer, BufferSize);
                if (received.Is(Errno.EINTR))
                    continue;
                if (!received.Ok)
                    return End(received);
                _at = 0;
                _length = received.Value;
                continue;
            }

            byte* message = _buffer.Pointer + _at;
            int size = (int)Math.Clamp(*(uint*)message, HeadSize, (uint)(_length - _at));
            _at += (size + 3) & ~3;
            switch (*(ushort*)(message + 4))
            {
                case ByFamily when size >= HeadSize + MessageSize:
                    Take(message + HeadSize, size - HeadSize, out socket);
                    return Result.From(1);
                case Error when size >= HeadSize + sizeof(int):
                    return End(Result.From((Errno)(-*(int*)(message + HeadSize))));
                case Done:
                    return End(default);
            }
        }

        return default;
    }

    Result End(Result result)
    {
        _listing = false;
        return result;
    }

    static void Take(byte* message, int size, out BoundSocket socket)
    {
        socket = default;
        socket.Port = BinaryPrimitives.ReverseEndianness(*(ushort*)(message + PortAt));
        socket.Interface = *(uint*)(message + InterfaceAt);
        if (message[0] == SocketAddress.V4)
        {
            socket.Address = Address.FromV4(BinaryPrimitives.ReverseEndianness(*(uint*)(message + AddressAt)));
            return;
        }

        socket.Address = Address.Read(new ReadOnlySpan<byte>(message + AddressAt, Address.Size));
        // struct nlattr: length, type, 16 bits each; padded to 4 bytes.
        for (int i = MessageSize; i + 4 < size; i += (Math.Max((int)Unsafe.ReadUnaligned<ushort>(message + i), 4) + 3) & ~3)
        {
            if (Unsafe.ReadUnaligned<ushort>(message + i + 2) == V6OnlyAttribute)
                socket.V6Only = message[i + 4] != 0;
        }
    }
}
