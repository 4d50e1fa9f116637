using Pesto.Linux;
using Pesto.Protocol;

namespace Pesto.Client;

/// <summary>
/// One connection to a server's control socket: its tables come, and an update may go back. Every wait has a deadline for
/// all of it, so that a server that sends for ever, or takes a byte now and then, holds the client no longer than one that stalls.
/// </summary>
sealed class Exchange : IDisposable
{
    /// <summary>Milliseconds in which a listing that has begun must be complete: a server that dribbles gets no more.</summary>
    const int ListingTimeout = 10_000;

    readonly string _path;
    readonly UnixStream _stream;
    bool _isGone;

    Exchange(string path, UnixStream stream, ServerState state)
    {
        _path = path;
        _stream = stream;
        State = state;
    }

    public ServerState State { get; }

    /// <summary>The process at the other end when it began to listen, which may be gone since.</summary>
    public int ServerProcess => _stream.PeerProcess;

    /// <summary>Connects and takes the server's listing.</summary>
    /// <param name="patience">Milliseconds until the listing must begin: others may have their turn first, and stall in it.</param>
    /// <exception cref="LinuxException">There is no server, or it does not answer in time.</exception>
    /// <exception cref="ProtocolException">It is none that can be understood.</exception>
    public static Exchange Open(string path, int patience)
    {
        Errno error = UnixStream.Connect(path, patience, out UnixStream? stream);
        if (stream is null)
            throw new LinuxException($"{path}: connect", error);
        return Begin(path, stream, patience);
    }

    /// <summary>Takes the server's listing from a connection, which is closed if there is none.</summary>
    internal static Exchange Begin(string path, UnixStream stream, int patience)
    {
        try
        {
            return new(path, stream, ReadState(path, stream, patience));
        }
        catch
        {
            stream.Dispose();
            throw;
        }
    }

    static ServerState ReadState(string path, UnixStream stream, int patience)
    {
        long deadline = Clock.Milliseconds + patience;
        byte[] buffer = new byte[ServerState.MostBytes];
        int length = 0;
        while (true)
        {
            ServerState? state;
            int needed;
            try
            {
                state = ServerState.Read(buffer.AsSpan(0, length), out needed);
            }
            catch (ProtocolException e)
            {
                throw new ProtocolException($"{path}: {e.Message}");
            }

            if (state is not null)
                return state;
            while (length < needed)
            {
                bool begins = length == 0;
                Result received = stream.Receive(buffer.AsSpan(length, needed - length), deadline);
                if (!received.Ok)
                    throw new LinuxException($"{path}: receive the tables", received.Error);
                if (received.Value == 0)
                    throw new ProtocolException($"{path}: the server hung up before its listing was complete");
                length += received.Value;
                if (begins)
                    deadline = Clock.Milliseconds + ListingTimeout;
            }
        }
    }

    /// <summary>Sends an update and waits until the server closes: then it is in force.</summary>
    /// <param name="timeout">Milliseconds for all of it.</param>
    /// <exception cref="RefusedException">The server refuses the update, which leaves its tables as they were.</exception>
    /// <exception cref="LinuxException">It does not get to an end in time.</exception>
    public void Update(ReadOnlySpan<byte> update, int timeout)
    {
        long deadline = Clock.Milliseconds + timeout;
        Errno error = _stream.Send(update, deadline);
        if (error == Errno.None)
            error = WaitForEnd(deadline);
        // A server that hangs up before it has read everything has found something wrong with what it has read.
        if (error is Errno.EPIPE or Errno.ECONNRESET)
            throw new RefusedException($"{_path}: the server refused the update; its tables are as before");
        if (error != Errno.None)
            throw new LinuxException($"{_path}: wait until the update is in force", error);
    }

    Errno WaitForEnd(long deadline)
    {
        _stream.HalfClose();
        Span<byte> ignored = stackalloc byte[256];
        Result received;
        do
            received = _stream.Receive(ignored, deadline);
        while (received.Ok && received.Value > 0);
        return received.Error;
    }

    /// <summary>Sends bytes of a transaction. If the server hung up, it may have said why: the next message awaited is that, or tells that there is none.</summary>
    /// <param name="timeout">Milliseconds for all of it.</param>
    /// <exception cref="LinuxException">The server does not take it in time.</exception>
    public void Send(ReadOnlySpan<byte> bytes, int timeout)
    {
        Errno error = _stream.Send(bytes, Clock.Milliseconds + timeout);
        _isGone = error is Errno.EPIPE or Errno.ECONNRESET;
        if (error != Errno.None && !_isGone)
            throw new LinuxException($"{_path}: send", error);
    }

    /// <summary>Waits for the server's next message of the transaction, and skips those that may be skipped.</summary>
    /// <param name="timeout">Milliseconds for all of it.</param>
    /// <returns>Its body.</returns>
    /// <exception cref="LinuxException">It does not come in time.</exception>
    /// <exception cref="ProtocolException">The server hung up, or said something else.</exception>
    public byte[] Await(MessageType type, int timeout)
    {
        long deadline = Clock.Milliseconds + timeout;
        Span<byte> bytes = stackalloc byte[MessageHead.Size];
        while (true)
        {
            ReceiveAll(bytes, deadline, type);
            MessageHead head = MessageHead.Read(bytes);
            if (head.Length > MessageHead.LongestServerBody)
                throw new ProtocolException($"{_path}: the server announces a message of {head.Length} bytes");
            byte[] body = new byte[head.Length];
            ReceiveAll(body, deadline, type);
            if (head.Type == type)
                return body;
            if (!head.MaySkip)
                throw new ProtocolException($"{_path}: the server sent a message of type {(byte)head.Type} where one of type {(byte)type} was due");
        }
    }

    void ReceiveAll(Span<byte> to, long deadline, MessageType due)
    {
        while (!to.IsEmpty)
        {
            Result received = _stream.Receive(to, deadline);
            if (received.Is(Errno.ECONNRESET) || (received.Ok && received.Value == 0))
                throw due == MessageType.Done ? new ProtocolException($"{_path}: {HungUp()}") : new DroppedException($"{_path}: the server hung up in the middle of the transaction, which undoes it");
            if (!received.Ok)
                throw new LinuxException($"{_path}: {(due == MessageType.Done ? "it can't be known whether the change is in force, look at the tables: " : "")}wait for the server's answer", received.Error);
            to = to[received.Value..];
        }
    }

    string HungUp() => _isGone
        ? "the server is gone; it was not told to keep the change"
        : "the server hung up before it told how the transaction ended; it can't be known whether the change is in force: look at the tables";

    public void Dispose() => _stream.Dispose();
}
