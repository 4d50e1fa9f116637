using System.Buffers.Binary;
using Pesto.Linux;
using Pesto.Protocol;

namespace Pesto.Client;

/// <summary>One connection to a server's control socket: its tables come, and an update may go back.</summary>
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
        long end = Clock.Milliseconds + patience;
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
                length += ReadSome(path, stream, buffer.AsSpan(length, needed - length), (int)Math.Max(0, end - Clock.Milliseconds));
                if (begins)
                    end = Clock.Milliseconds + ListingTimeout;
            }
        }
    }

    static int ReadSome(string path, UnixStream stream, Span<byte> to, int timeout)
    {
        Result received = stream.Receive(to, timeout);
        if (!received.Ok)
            throw new LinuxException($"{path}: receive the tables", received.Error);
        if (received.Value == 0)
            throw new ProtocolException($"{path}: the server hung up before its listing was complete");
        return received.Value;
    }

    /// <summary>Sends an update and waits until the server closes: then it is in force.</summary>
    /// <param name="timeout">Milliseconds to wait for the end.</param>
    /// <exception cref="RefusedException">The server refuses the update, which leaves its tables as they were.</exception>
    /// <exception cref="LinuxException">It does not get to an end in time.</exception>
    public void Update(ReadOnlySpan<byte> update, int timeout)
    {
        Errno error = _stream.Send(update);
        if (error == Errno.None)
            error = WaitForEnd(timeout);
        // A server that hangs up before it has read everything has found something wrong with what it has read.
        if (error is Errno.EPIPE or Errno.ECONNRESET)
            throw new RefusedException($"{_path}: the server refused the update; its tables are as before");
        if (error != Errno.None)
            throw new LinuxException($"{_path}: wait until the update is in force", error);
    }

    Errno WaitForEnd(int timeout)
    {
        _stream.HalfClose();
        long end = Clock.Milliseconds + timeout;
        Span<byte> ignored = stackalloc byte[256];
        Result received;
        do
            received = _stream.Receive(ignored, (int)Math.Max(0, end - Clock.Milliseconds));
        while (received.Ok && received.Value > 0 && Clock.Milliseconds < end);
        return received.Ok && received.Value > 0 ? Errno.ETIMEDOUT : received.Error;
    }

    /// <summary>The process at the other end when it began to listen, which may be gone since.</summary>
    public int ServerProcess => _stream.PeerProcess;

    /// <summary>Sends a message of the transaction. If the server hung up, it may have said why: the next message awaited is that, or tells that there is none.</summary>
    /// <exception cref="LinuxException">The server takes nothing in time.</exception>
    public void Send(ReadOnlySpan<byte> bytes)
    {
        Errno error = _stream.Send(bytes);
        _isGone = error is Errno.EPIPE or Errno.ECONNRESET;
        if (error != Errno.None && !_isGone)
            throw new LinuxException($"{_path}: send", error);
    }

    /// <summary>Waits for the server's next message of the transaction.</summary>
    /// <param name="timeout">Milliseconds for all of it.</param>
    /// <returns>Its body.</returns>
    /// <exception cref="LinuxException">It does not come in time.</exception>
    /// <exception cref="ProtocolException">The server hung up, or said something else.</exception>
    public byte[] Await(MessageType type, int timeout)
    {
        long end = Clock.Milliseconds + timeout;
        Span<byte> head = stackalloc byte[Transactions.HeadSize];
        while (true)
        {
            ReceiveAll(head, end, type);
            uint length = BinaryPrimitives.ReadUInt32BigEndian(head[1..]);
            if (length > Transactions.LongestServerBody)
                throw new ProtocolException($"{_path}: the server announces a message of {length} bytes");
            byte[] body = new byte[length];
            ReceiveAll(body, end, type);
            if (head[0] == (byte)type)
                return body;
            if (!Transactions.MaySkip(head[0]))
                throw new ProtocolException($"{_path}: the server sent a message of type {head[0]} where one of type {(byte)type} was due");
        }
    }

    void ReceiveAll(Span<byte> to, long end, MessageType due)
    {
        while (!to.IsEmpty)
        {
            Result received = _stream.Receive(to, (int)Math.Max(0, end - Clock.Milliseconds));
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
