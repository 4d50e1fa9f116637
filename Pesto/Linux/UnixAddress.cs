using System.Runtime.InteropServices;
using System.Text;

namespace Pesto.Linux;

/// <summary>A sockaddr_un: the path of a UNIX socket in the file system, at most 107 bytes.</summary>
[StructLayout(LayoutKind.Sequential, Size = 112)]
public unsafe struct UnixAddress
{
    ushort _family;
    fixed byte _path[108];

    public const int LongestPath = 107;

    /// <summary>Fails if the path is empty, too long, or has a NUL.</summary>
    public static bool TryCreate(string text, out UnixAddress address)
    {
        address = default;
        address._family = 1;
        int length = Encoding.UTF8.GetByteCount(text);
        if (length is 0 or > LongestPath || text.Contains('\0'))
            return false;
        fixed (byte* p = address._path)
            Encoding.UTF8.GetBytes(text, new Span<byte>(p, 108));
        return true;
    }

    public Result Bind(int fd)
    {
        fixed (UnixAddress* p = &this)
            return Result.Of(Libc.bind(fd, p, 2 + 108));
    }

    /// <summary>Connects. While the server's backlog is full, a blocking socket waits, and a non-blocking one fails with EAGAIN.</summary>
    public Result Connect(int fd)
    {
        fixed (UnixAddress* p = &this)
        {
            Result result;
            do
                result = Result.Of(Libc.connect_wait(fd, p, 2 + 108));
            while (result.Is(Errno.EINTR));
            return result;
        }
    }
}
