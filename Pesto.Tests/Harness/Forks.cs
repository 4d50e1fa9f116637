using System.ComponentModel;
using System.Diagnostics;
using System.Net.Sockets;

namespace Pesto.Tests.Harness;

/// <summary>
/// Tests run in one process, and between fork and exec a new process has copies of all its descriptors. A socket that is closed meanwhile
/// goes on to listen, and its port is taken until the exec, by nobody whom the test knows.
/// </summary>
static class Forks
{
    static readonly ReaderWriterLockSlim UnderWay = new();

    /// <summary>Starts a process; by its return that has executed its program.</summary>
    public static Process Start(ProcessStartInfo what)
    {
        UnderWay.EnterReadLock();
        try
        {
            return Process.Start(what) ?? throw new Win32Exception();
        }
        finally
        {
            UnderWay.ExitReadLock();
        }
    }

    /// <summary>Closes a socket whose port is to be free for others by the return.</summary>
    public static void CloseForGood(this Socket socket)
    {
        socket.Dispose();
        UnderWay.EnterWriteLock();
        UnderWay.ExitWriteLock();
    }
}
