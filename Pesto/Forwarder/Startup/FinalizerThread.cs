using System.Runtime.CompilerServices;

namespace Pesto.Forwarder.Startup;

/// <summary>
/// The runtime's own thread, which runs finalizers and exists before the program's first line. A thread can change its own capabilities and
/// Landlock rules only, so it has to run code: the finalizer of an object without references does that.
/// </summary>
static class FinalizerThread
{
    public static void Run(Action what)
    {
        Leave(what);
        GC.Collect();
        GC.WaitForPendingFinalizers();
    }

    // Not inlined: the frame, and its reference to the object, is gone when the collection runs.
    [MethodImpl(MethodImplOptions.NoInlining)]
    static void Leave(Action what) => _ = new Leftover(what);

    sealed class Leftover(Action what)
    {
        ~Leftover() => what();
    }
}
