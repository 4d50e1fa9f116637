using System.Buffers.Binary;
using System.Runtime.CompilerServices;

namespace Pesto.Linux;

/// <summary>
/// The TCP connections whose handshake with a listening socket is under way (SYN received, and an ACK still to come), as the
/// kernel's socket diagnosis lists them (sock_diag(7)). It belongs to the network namespace of the thread that makes it.
/// </summary>
public sealed unsafe class Handshakes
{
    const int Netlink = 16, Raw = 3, NonBlocking = 0x800, CloseOnExec = 0x80000, SocketDiagnosis = 4;
    const int HeadSize = 16, RequestSize = 72, BufferSize = 32 * 1024;
    const ushort ByFamily = 20, RequestDump = 0x301, FirstDataType = 16;
    const uint SynReceived = 1 << 3;

    readonly int _fd;
    readonly NativeArray<byte> _answer = new(BufferSize);
    ushort _family;
    int _at;
    int _length;

    /// <summary>Where there is no such thing as socket diagnosis, no handshake is ever seen.</summary>
    public Handshakes()
    {
        Result socket = Result.Of(Libc.socket(Netlink, Raw | NonBlocking | CloseOnExec, SocketDiagnosis));
        _fd = socket.Ok ? socket.Value : -1;
    }

    /// <summary>Asks anew; go on with <see cref="Next"/> until that is false.</summary>
    public void Begin() => Ask(SocketAddress.V4);

    void Ask(ushort which)
    {
        _family = which;
        _at = _length = 0;
        // struct nlmsghdr (u32 length, u16 type, u16 flags), struct inet_diag_req_v2 (u8 family, u8 protocol, u16, u32 states).
        byte* request = stackalloc byte[RequestSize];
        Unsafe.InitBlock(request, 0, RequestSize);
        *(uint*)request = RequestSize;
        *(ushort*)(request + 4) = ByFamily;
        *(ushort*)(request + 6) = RequestDump;
        request[HeadSize] = (byte)which;
        request[HeadSize + 1] = 6;
        *(uint*)(request + HeadSize + 4) = SynReceived;
        _ = Sockets.Send(_fd, request, RequestSize).Ok;
    }

    /// <summary>Gives the local port of another one; false if there is none left.</summary>
    public bool Next(out ushort port)
    {
        port = 0;
        while (true)
        {
            if (_at + HeadSize > _length)
            {
                // The answer is there when the request was sent, or never.
                Result received = Sockets.Receive(_fd, _answer.Pointer, BufferSize);
                if (!received.Ok || received.Value == 0)
                    return false;
                _at = 0;
                _length = received.Value;
                continue;
            }

            byte* message = _answer.Pointer + _at;
            int size = (int)Math.Clamp(*(uint*)message, HeadSize, (uint)(_length - _at));
            _at += (size + 3) & ~3;
            if (*(ushort*)(message + 4) >= FirstDataType && size > HeadSize + sizeof(ushort) * 2)
            {
                // struct inet_diag_msg: four bytes, then the local port.
                port = BinaryPrimitives.ReadUInt16BigEndian(new ReadOnlySpan<byte>(message + HeadSize + 4, 2));
                return true;
            }

            // The end of the list, or an error.
            if (_family == SocketAddress.V6)
                return false;
            Ask(SocketAddress.V6);
        }
    }
}
