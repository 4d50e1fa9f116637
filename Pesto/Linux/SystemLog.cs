namespace Pesto.Linux;

/// <summary>The system's logger, syslog(3): lines of the facility "daemon", priority "info".</summary>
public static unsafe class SystemLog
{
    const int Daemon = 3 << 3, DaemonInfo = Daemon | 6;

    /// <summary>Connects to the logger and learns the time zone now: later there may be no way to files.</summary>
    public static void Open()
    {
        const int AtOnce = 8;
        Libc.openlog(null, AtOnce, Daemon);
        Libc.tzset();
    }

    /// <param name="line">UTF-8 up to a NUL.</param>
    public static void Write(ReadOnlySpan<byte> line)
    {
        fixed (byte* format = "%s\0"u8, text = line)
            Libc.syslog(DaemonInfo, format, text);
    }
}
