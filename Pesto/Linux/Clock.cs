namespace Pesto.Linux;

/// <summary>CLOCK_MONOTONIC: setting the time does not move it.</summary>
public static unsafe class Clock
{
    const int Monotonic = 1;

    public static long Nanoseconds
    {
        get
        {
            long* time = stackalloc long[2];
            // EINVAL and EFAULT can't come: the clock exists and the memory is this frame's.
            _ = Libc.clock_gettime(Monotonic, time);
            return (time[0] * 1_000_000_000) + time[1];
        }
    }

    public static long Milliseconds => Nanoseconds / 1_000_000;

    public static void Sleep(int milliseconds) => _ = Libc.poll(null, 0, milliseconds);
}
