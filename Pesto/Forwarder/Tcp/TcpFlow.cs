using System.Runtime.CompilerServices;
using Pesto.Forwarder.Loop;

namespace Pesto.Forwarder.Tcp;

/// <summary>One end of a flow: its socket, and the stream that is received from it and sent to the other end.</summary>
struct TcpEnd
{
    public int Fd;

    /// <summary>Something may be there to receive: cleared when the kernel has said that there is nothing.</summary>
    public bool Readable;

    /// <summary>It may take something: cleared when the kernel has said that it takes nothing.</summary>
    public bool Writable;

    /// <summary>
    /// What is sent leaves at once (TCP_NODELAY). Accepted sockets have it from their listening socket; those to targets get it when they
    /// send for the second time, since the first is never held back, and many flows have no second.
    /// </summary>
    public bool NoDelay;

    public bool HasSent;

    /// <summary>
    /// Events for what it receives are off: a sender that is faster than the other end would wake the loop for every piece, only to find
    /// that there is nowhere to put it.
    /// </summary>
    public bool ReadPaused;

    /// <summary>Events for what it receives come when there are <see cref="TcpRelay.LowWaterMark"/> bytes (SO_RCVLOWAT).</summary>
    public bool LowWater;

    /// <summary>No new event may come for what is still to be received, so receive until the kernel says that there is nothing.</summary>
    public bool ReadToEnd;

    /// <summary>The pieces of its stream are large: splice.</summary>
    public bool Streaming;

    /// <summary>Its stream has ended.</summary>
    public bool Ended;

    /// <summary>The other end has been told so.</summary>
    public bool EndSent;

    /// <summary>The pipe that holds bytes on their way to the other end, or -1.</summary>
    public int Pipe;

    /// <summary>Bytes in the pipe.</summary>
    public int Held;

    /// <summary>Bytes spliced without a pause.</summary>
    public long Streamed;

    /// <summary>After which of the loop's waits it was seen that there is nothing more to receive: what that wait says of it is old.</summary>
    public long DryAt;
}

/// <summary>A forwarded TCP connection, in native memory.</summary>
struct TcpFlow
{
    /// <summary>The places of the ends.</summary>
    public const int Client = 0, Target = 1;

    EndPair _ends;

    /// <summary>The listening socket that it was accepted from, by the generation that it had then.</summary>
    public int Listener;
    public uint ListenerGeneration;

    /// <summary>What its descriptors are counted as.</summary>
    public DescriptorUse Use;

    /// <summary>The target has accepted it.</summary>
    public bool Connected;

    /// <summary>The version of the PROXY protocol by which the target hears of the client, before it hears anything else; 0 for none.</summary>
    public byte ProxyVersion;

    /// <summary>Bytes of that header that have been sent.</summary>
    public byte HeaderSent;

    /// <summary>Urgent data has come: it is received, not spliced, and until nothing is left.</summary>
    public bool Urgent;

    /// <summary>An end was reset: its stream seems to end now, and must not be taken for one that was complete.</summary>
    public bool Failed;

    /// <summary>One stream has ended and the other has not; there is a limit for that.</summary>
    public bool HalfClosed;

    [InlineArray(2)]
    struct EndPair
    {
        TcpEnd _first;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static unsafe TcpEnd* End(TcpFlow* flow, int part) => (TcpEnd*)&flow->_ends + part;
}
