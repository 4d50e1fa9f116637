using System.Runtime.CompilerServices;

namespace Pesto.Forwarder.Startup;

/// <summary>
/// The runtime's own thread for what is left to be cleaned up. It is there before the program's first line, and the only
/// way to have it do something is an object that nobody needs any more.
/// </summary>
static class FinalizerThread
{
    public static void Run(Action what)
    {
        Leave(what);
        GC.Collect();
        GC.WaitForPendingFinalizers();
    }

    // In a frame of its own, which is gone with all references when the garbage is collected.
    [MethodImpl(MethodImplOptions.NoInlining)]
    static void Leave(Action what) => _ = new Leftover(what);

    sealed class Leftover(Action what)
    {
        ~Leftover() => what();
    }
}
