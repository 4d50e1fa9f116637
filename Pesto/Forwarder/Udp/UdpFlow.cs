using Pesto.Forwarder.Listening;
using Pesto.Linux;

namespace Pesto.Forwarder.Udp;

/// <summary>One client's conversation with a target.</summary>
public struct UdpFlow
{
    public UdpFlowKey Key;

    /// <summary>The client as the kernel wants it named, when something is sent to it.</summary>
    public SocketAddress Client;

    /// <summary>The target by the client's rule: when a commit gives the rule another, the flow ends.</summary>
    public SocketAddress Target;

    /// <summary>The socket in the target's namespace: what the target sends to it is for the client.</summary>
    public UdpTargetSocket Socket;

    /// <summary>What goes before the payload of each request, if anything.</summary>
    public ProxyHeader Header;

    /// <summary>The listening socket by which replies leave.</summary>
    public int Listener;

    /// <summary>The index of the interface that the client's last request came by; 0 if the listening socket does not tell.</summary>
    public uint Interface;

    /// <summary>How far the conversation has come.</summary>
    public UdpFlowStage Stage;

    /// <summary>The path to the target takes no segments.</summary>
    public bool OnlySinglesIn;

    /// <summary>The path to the client takes no segments.</summary>
    public bool OnlySinglesOut;

    /// <summary>It is in the list of those that had more to move than was fair.</summary>
    public bool IsReady;

    /// <summary>When something moved last, in milliseconds of the loop's clock.</summary>
    public long Moved;

    /// <summary>The next in the same bucket of the table, or -1.</summary>
    public int NextInBucket;

    // Its neighbours among the flows of the same listening socket, or -1.
    public int Next;
    public int Previous;
}

/// <summary>How far the conversation of a flow has come. When there are too many, flows of an earlier stage end first.</summary>
public enum UdpFlowStage : byte
{
    /// <summary>The client has sent something. A sender with made-up source addresses can make any number of these.</summary>
    Requested,

    /// <summary>The target has sent something.</summary>
    Replied,

    /// <summary>After that, the client has sent something again: so it exists, and goes by what it received.</summary>
    Conversing,
}
