namespace Pesto.Linux;

/// <summary>The system's logger, syslog(3): lines of the facility "daemon", priority "info".</summary>
public static unsafe class SystemLog
{
    const int DaemonInfo = (3 << 3) | 6;

    /// <param name="line">UTF-8 up to a NUL.</param>
    public static void Write(ReadOnlySpan<byte> line)
    {
        fixed (byte* format = "%s\0"u8, text = line)
            Libc.syslog(DaemonInfo, format, text);
    }
}
