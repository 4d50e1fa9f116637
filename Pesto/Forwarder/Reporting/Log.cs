using System.Runtime.CompilerServices;
using System.Text.Unicode;
using Pesto.Linux;

namespace Pesto.Forwarder.Reporting;

/// <summary>
/// Messages for people. A line is put together in one buffer and written by one call, so that logging allocates nothing and lines of several
/// processes do not mix. Only the loop's thread logs.
/// </summary>
public static class Log
{
    const int LongestLine = 2048;

    static readonly byte[] Line = new byte[LongestLine];

    static int _descriptor = 2;
    static bool _quiet;
    static bool _debug;
    static bool _dated;
    static bool _toSystem;

    /// <param name="fd">Where lines go from now on.</param>
    /// <param name="withTime">Whether each line starts with the time, as in a file.</param>
    public static void WriteTo(int fd, bool withTime)
    {
        _descriptor = fd;
        _dated = withTime;
    }

    /// <summary>From now on to the system's logger, as daemons do that have no terminal and no file.</summary>
    public static void ToSystem()
    {
        SystemLog.Open();
        _toSystem = true;
    }

    /// <summary>
    /// poll(2) calls a terminal writable that takes less than a line, and writing the line would wait. Opened anew, it has an open file
    /// description of its own, which can be non-blocking without affecting other processes: the rest of the line is lost instead.
    /// </summary>
    public static void NeverWaitForTerminal()
    {
        if (!Descriptors.IsTerminal(_descriptor))
            return;
        Result terminal = Files.Open($"/proc/self/fd/{_descriptor}", Files.WriteOnly | Files.NonBlocking | Files.NoTerminal);
        if (terminal.Ok)
            _descriptor = terminal.Value;
    }

    public static void SetLevel(bool isQuiet, bool isDebug)
    {
        _quiet = isQuiet;
        _debug = isDebug;
    }

    /// <summary>What the user has to know: always written.</summary>
    public static void Error(Text text) => Write(text);

    public static void Warn(Text text) => Write(text);

    public static void Info(Text text)
    {
        if (!_quiet)
            Write(text);
    }

    public static void Debug([InterpolatedStringHandlerArgument] DebugText text)
    {
        if (_debug)
            Write(text.Inner);
    }

    static void Write(Text text)
    {
        if (_toSystem)
        {
            SystemLog.Write(Line.AsSpan(0, text.Length));
            return;
        }

        Line[text.Length] = (byte)'\n';
        // A full disk, a closed terminal or a full pipe loses lines; it does not end or delay the service.
        if (Descriptors.IsWritable(_descriptor))
            _ = Descriptors.WriteAll(_descriptor, Line.AsSpan(0, text.Length + 1));
    }

    /// <summary>Puts a line together without allocating: what does not fit is cut off.</summary>
    [InterpolatedStringHandler]
    public ref struct Text
    {
        public Text(int literalLength, int formattedCount)
        {
            _ = (literalLength, formattedCount);
            if (_dated)
                AppendTime();
            else
                AppendLiteral("pesto: ");
        }

        public int Length { get; private set; }

        readonly Span<byte> Rest => Line.AsSpan(Length, LongestLine - 1 - Length);

        public void AppendLiteral(string text)
        {
            _ = Utf8.FromUtf16(text, Rest, out int _, out int written);
            Length += written;
        }

        public void AppendFormatted(string? text) => AppendLiteral(text ?? "");

        public void AppendFormatted(ReadOnlySpan<byte> utf8)
        {
            Span<byte> rest = Rest;
            int length = Math.Min(utf8.Length, rest.Length);
            utf8[..length].CopyTo(rest);
            Length += length;
        }

        public void AppendFormatted(Address address)
        {
            if (address.TryFormat(Rest, out int written))
                Length += written;
        }

        public void AppendFormatted(long value)
        {
            // The runtime's own formatting keeps strings of small numbers, so it allocates when it meets one for the first time.
            if (value < 0)
                AppendLiteral("-");
            ulong left = value < 0 ? (ulong)-value : (ulong)value;
            ulong place = 1;
            while (left / place >= 10)
                place *= 10;
            for (; place != 0 && !Rest.IsEmpty; place /= 10)
                Line[Length++] = (byte)('0' + (left / place % 10));
        }

        void AppendTime()
        {
            if (DateTime.UtcNow.TryFormat(Rest, out int written, "yyyy-MM-ddTHH:mm:ss.fffZ", null))
                Length += written;
            AppendLiteral(" ");
        }
    }

    /// <summary>As <see cref="Text"/>, but nothing is formatted unless debug messages are on.</summary>
    [InterpolatedStringHandler]
    public ref struct DebugText
    {
        internal Text Inner;

        public DebugText(int literalLength, int formattedCount, out bool wanted)
        {
            wanted = _debug;
            if (wanted)
                Inner = new(literalLength, formattedCount);
        }

        public void AppendLiteral(string text) => Inner.AppendLiteral(text);

        public void AppendFormatted(string? text) => Inner.AppendFormatted(text);

        public void AppendFormatted(ReadOnlySpan<byte> utf8) => Inner.AppendFormatted(utf8);

        public void AppendFormatted(Address address) => Inner.AppendFormatted(address);

        public void AppendFormatted(long value) => Inner.AppendFormatted(value);
    }
}
