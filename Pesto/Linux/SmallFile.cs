using System.Text;

namespace Pesto.Linux;

/// <summary>A file of at most 4,095 bytes, as most of /proc are, read at once.</summary>
public static unsafe class SmallFile
{
    const int O_RDONLY = 0;
    const int O_CLOEXEC = 0x80000;
    const int Most = 4096;

    /// <summary>Reads the file as UTF-8. What is longer is cut off.</summary>
    public static Errno Read(string path, out string text)
    {
        text = "";
        byte[] name = Encoding.UTF8.GetBytes(path + '\0');
        byte* buffer = stackalloc byte[Most];
        Result file;
        fixed (byte* start = name)
            file = Result.Of(Libc.open(start, O_RDONLY | O_CLOEXEC, 0));
        if (!file.Ok)
            return file.Error;
        int length = 0;
        Result read;
        do
        {
            read = Result.Of(Libc.read(file.Value, buffer + length, (nuint)(Most - length)));
            if (read.Ok)
                length += read.Value;
        }
        while (read.Is(Errno.EINTR) || (read.Ok && read.Value > 0 && length < Most));
        _ = Libc.close(file.Value);
        text = Encoding.UTF8.GetString(buffer, length);
        return read.Error;
    }
}
