namespace Pesto.Forwarder.Reporting;

/// <summary>What the forwarder has done since it started. Only the loop's thread touches them.</summary>
public sealed class Counters
{
    public long TcpOpen;
    public long TcpTotal;

    /// <summary>Connections reset because the target could not be reached or refused.</summary>
    public long Refused;

    /// <summary>Connections reset because a limit (descriptors, memory, flows, local ports) was reached.</summary>
    public long Shed;

    /// <summary>Connections and datagrams refused because there is no address that they may come from, or because they want what is for loopback.</summary>
    public long AddressRefused;

    public long UdpOpen;
    public long UdpTotal;

    /// <summary>UDP flows that ended with ECONNREFUSED: nothing listens on the target.</summary>
    public long UdpRefused;

    /// <summary>UDP flows that ended to make room for others.</summary>
    public long UdpShed;

    /// <summary>From client to target.</summary>
    public long DatagramsIn;

    /// <summary>From target to client.</summary>
    public long DatagramsOut;

    /// <summary>Datagrams that were received and could not be sent on, for whatever reason.</summary>
    public long DatagramsDropped;

    /// <summary>From client to target, in bytes.</summary>
    public long BytesIn;

    /// <summary>From target to client, in bytes.</summary>
    public long BytesOut;

    public long Commits;

    /// <summary>Pieces in which updates were carried out, between which traffic is served, and the longest of them in nanoseconds.</summary>
    public long Slices;
    public long LongestSlice;
    public long Rollbacks;
    public long SocketsOpened;
    public long SocketsStolen;
    public long SocketsParked;
    public long SocketsClosed;

    /// <summary>Times that it was looked which ports of "auto" rules are listened on in the target.</summary>
    public long Scans;

    /// <summary>Listening sockets that a table wanted and that could not be had.</summary>
    public long SocketsFailed;
}
