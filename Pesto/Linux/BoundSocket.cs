namespace Pesto.Linux;

/// <summary>A socket that waits for peers: TCP listening, or UDP bound and not connected.</summary>
public struct BoundSocket
{
    public Address Address;
    public ushort Port;

    /// <summary>The index of the interface that it is bound to, else 0.</summary>
    public uint Interface;

    /// <summary>At "::", it does not take IPv4 too.</summary>
    public bool V6Only;

    /// <summary>Whether what its own namespace sends to itself can come to it: that comes by way of the loopback interface, whatever the address.</summary>
    public readonly bool IsOnLoopback
    {
        get
        {
            const uint Loopback = 1;
            return Interface is 0 or Loopback;
        }
    }
}

/// <summary>A way to list the sockets of a network namespace that wait for peers. It belongs to the namespace in which it was opened.</summary>
public interface ISocketList
{
    /// <summary>Begins to list those of a protocol (6 or 17) and family; what was left of the last list is given up.</summary>
    Result Begin(byte protocol, ushort family);

    /// <summary>
    /// 1 and the next socket, or 0 at the end of the list, or EAGAIN: not yet, call again. Any other error: the list breaks off here. Makes
    /// one system call at most and never waits. Sockets that open and close meanwhile may hide others.
    /// </summary>
    Result Next(out BoundSocket socket);
}

public static class SocketLists
{
    /// <summary>The best list that the calling thread's namespace has.</summary>
    public static ISocketList Open()
    {
        Result diagnosis = SocketDiagnosis.Open(out SocketDiagnosis? list);
        return diagnosis.Ok ? list! : new SocketFiles();
    }
}
