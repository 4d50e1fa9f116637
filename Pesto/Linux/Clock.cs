namespace Pesto.Linux;

/// <summary>The monotonic clock: not moved by whoever sets the time.</summary>
public static unsafe class Clock
{
    const int Monotonic = 1;

    public static long Nanoseconds
    {
        get
        {
            long* time = stackalloc long[2];
            _ = Libc.clock_gettime(Monotonic, time);
            return (time[0] * 1_000_000_000) + time[1];
        }
    }

    public static long Milliseconds => Nanoseconds / 1_000_000;

    public static void Sleep(int milliseconds) => _ = Libc.poll(null, 0, milliseconds);
}
