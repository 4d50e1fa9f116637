using System.Buffers.Binary;
using System.Buffers.Text;

namespace Pesto.Linux;

/// <summary>
/// Sockets as the files of /proc/net list them, for kernels without sock_diag(7): all there are, in text, without their
/// interface, and without telling an IPv6 socket that takes IPv4 from one that does not.
/// </summary>
public sealed unsafe class SocketFiles : ISocketList
{
    const int BufferSize = 16 * 1024;
    const byte Listening = 10, Unconnected = 7;

    static readonly string[] Names = ["tcp", "tcp6", "udp", "udp6"];

    readonly int[] _files = new int[4];
    readonly NativeArray<byte> _buffer = new(BufferSize);
    int _fd = -1;
    byte _state;
    long _offset;
    int _at;
    int _length;

    /// <summary>An open file stays one of the namespace in which it was opened.</summary>
    public SocketFiles()
    {
        for (int i = 0; i < Names.Length; i++)
        {
            Result file = Files.Open($"/proc/thread-self/net/{Names[i]}", Files.ReadOnly);
            _files[i] = file.Ok ? file.Value : -1;
        }
    }

    public Result Begin(byte protocol, ushort family)
    {
        _fd = _files[(protocol == 17 ? 2 : 0) + (family == SocketAddress.V6 ? 1 : 0)];
        _state = protocol == 17 ? Unconnected : Listening;
        _offset = _at = _length = 0;
        return _fd < 0 ? Result.From(Errno.ENOENT) : default;
    }

    public Result Next(out BoundSocket socket)
    {
        while (true)
        {
            ReadOnlySpan<byte> rest = new(_buffer.Pointer + _at, _length - _at);
            int end = rest.IndexOf((byte)'\n');
            if (end >= 0)
            {
                _at += end + 1;
                if (TryParse(rest[..end], out byte found, out socket) && found == _state)
                    return Result.From(1);
                continue;
            }

            rest.CopyTo(_buffer.Span);
            _at = 0;
            _length = rest.Length;
            Result read = Descriptors.ReadAt(_fd, _buffer.Span[_length..], _offset);
            socket = default;
            if (!read.Ok || read.Value == 0)
                return read;
            _offset += read.Value;
            _length += read.Value;
        }
    }

    /// <summary>Reads a line such as "   0: 0100007F:1F90 00000000:0000 0A ...": own address and port, the peer's, the state.</summary>
    static bool TryParse(ReadOnlySpan<byte> line, out byte state, out BoundSocket socket)
    {
        state = 0;
        socket = default;
        int colon = line.IndexOf(": "u8);
        if (colon < 0)
            return false;
        line = line[(colon + 2)..];
        int gap = line.IndexOf((byte)' ');
        int digits = line.IndexOf((byte)':');
        if (digits is not (8 or 32) || gap != digits + 5 || line.Length < (2 * (gap + 1)) + 2)
            return false;

        Span<byte> address = stackalloc byte[Address.Size];
        for (int word = 0; word < digits / 8; word++)
        {
            // Each word of the address is written as a number of this machine's byte order.
            if (!Utf8Parser.TryParse(line.Slice(word * 8, 8), out uint value, out _, 'X'))
                return false;
            BitConverter.TryWriteBytes(address[(word * 4)..], value);
        }

        socket.Address = digits == 8 ? Address.FromV4(BinaryPrimitives.ReadUInt32BigEndian(address)) : Address.Read(address);
        return Utf8Parser.TryParse(line.Slice(digits + 1, 4), out socket.Port, out _, 'X')
            && Utf8Parser.TryParse(line.Slice(2 * (gap + 1), 2), out state, out _, 'X');
    }
}
