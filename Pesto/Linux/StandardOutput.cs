using System.Text;

namespace Pesto.Linux;

/// <summary>Standard output and standard error, unbuffered.</summary>
public static unsafe class StandardOutput
{
    const int Out = 1;
    const int Err = 2;
    const short POLLOUT = 4;

    public static bool ErrorIsTerminal => Libc.isatty(Err) == 1;

    public static Errno Write(string text) => Write(Out, text);

    public static Errno WriteError(string text) => Write(Err, text);

    static Errno Write(int fd, string text)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        fixed (byte* start = bytes)
        {
            for (int written = 0; written < bytes.Length;)
            {
                Result result = Result.Of(Libc.write(fd, start + written, (nuint)(bytes.Length - written)));
                if (result.Ok)
                    written += result.Value;
                else if (result.Is(Errno.EAGAIN))
                    WaitWritable(fd);
                else if (!result.Is(Errno.EINTR))
                    return result.Error;
            }
        }

        return Errno.None;
    }

    /// <summary>The open file description is shared with the process that started this one, which may have made it non-blocking.</summary>
    static void WaitWritable(int fd)
    {
        int* wait = stackalloc int[2] { fd, POLLOUT };
        _ = Libc.poll(wait, 1, -1);
    }
}
