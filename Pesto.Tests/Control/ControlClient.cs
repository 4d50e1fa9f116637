using System.Buffers.Binary;
using System.Net.Sockets;
using System.Text;
using Pesto.Linux;
using Pesto.Protocol;
using Pesto.Rules;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Control;

/// <summary>A client of the control protocol, byte by byte: it can stop, break off or err wherever a test wants it to.</summary>
sealed class ControlClient : IDisposable
{
    public ControlClient(string path)
    {
        this.Socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { SendTimeout = 30_000, ReceiveTimeout = 30_000 };
        this.Socket.Connect(new UnixDomainSocketEndPoint(path));
    }

    public Socket Socket { get; }

    /// <summary>The same as the server lists them, in force when this client had its turn.</summary>
    public ServerState? Listed { get; private set; }

    /// <summary>Connects, and waits for its turn.</summary>
    public static ControlClient Greeted(string path)
    {
        ControlClient client = new(path);
        try
        {
            client.ReadListing();
            return client;
        }
        catch
        {
            client.Dispose();
            throw;
        }
    }

    /// <summary>Has made the server put tables in force, and may commit or roll back.</summary>
    public static ControlClient Applied(string path, ServerTables tables, uint seconds = 0)
    {
        ControlClient client = Greeted(path);
        client.Send(Hello);
        client.Send(TablesMessage(tables));
        Assert.Equal(VerdictStatus.Valid, client.ReadVerdict().Status);
        client.Send(ApplyMessage(seconds));
        client.Outcome = client.ReadOutcome();
        return client;
    }

    /// <summary>Replaces the tables in one transaction; fails if a port fails.</summary>
    public static void Replace(string path, ServerTables tables)
    {
        using ControlClient client = Applied(path, tables);
        Assert.Equal(0u, client.Outcome!.Failures);
        client.Send(CommitMessage);
        Assert.Equal(DoneStatus.Committed, client.ReadDone());
    }

    public static ServerTables Look(string path)
    {
        using ControlClient client = Greeted(path);
        return ServerTables.Of(client.Listed!);
    }

    // What a client may send.
    public static byte[] Hello
    {
        get
        {
            byte[] hello = new byte[Transactions.HelloSize];
            Transactions.WriteHello(hello);
            return hello;
        }
    }

    public static byte[] Message(byte type, params ReadOnlySpan<byte> body)
    {
        byte[] message = new byte[Transactions.HeadSize + body.Length];
        Transactions.WriteHead(message, (MessageType)type, body.Length);
        body.CopyTo(message.AsSpan(Transactions.HeadSize));
        return message;
    }

    public static byte[] TablesMessage(ServerTables tables) => Message((byte)MessageType.Tables, tables.Update());

    public static byte[] ApplyMessage(uint seconds = 0)
    {
        byte[] body = new byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(body, seconds);
        return Message((byte)MessageType.Apply, body);
    }

    public static byte[] CommitMessage => Message((byte)MessageType.Commit);

    public static byte[] RollbackMessage => Message((byte)MessageType.Rollback);

    public void Send(params ReadOnlySpan<byte> bytes)
    {
        while (!bytes.IsEmpty)
            bytes = bytes[this.Socket.Send(bytes)..];
    }

    // What the server answers.
    public ServerState ReadListing()
    {
        byte[] listing = [];
        ServerState? state;
        while ((state = ServerState.Read(listing, out int needed)) == null)
            listing = [.. listing, .. this.Socket.ReadExactly(needed - listing.Length)];
        this.Listed = state;
        return state;
    }

    public sealed record Verdict(VerdictStatus Status, byte Pif, uint Rule, string Text);

    public sealed record Failure(byte Pif, uint Rule, ushort Port, Errno Error);

    public sealed record OutcomeBody(uint Failures, Failure[] Entries);

    /// <summary>What applying came to, for a client that has applied.</summary>
    public OutcomeBody? Outcome { get; private set; }

    public Verdict ReadVerdict()
    {
        byte[] body = this.ReadMessage(MessageType.Verdict);
        Assert.Equal(body.Length, Transactions.VerdictSize + BinaryPrimitives.ReadUInt16BigEndian(body.AsSpan(9)));
        return new((VerdictStatus)BinaryPrimitives.ReadUInt32BigEndian(body), body[4], BinaryPrimitives.ReadUInt32BigEndian(body.AsSpan(5)), Encoding.UTF8.GetString(body.AsSpan(11)));
    }

    public OutcomeBody ReadOutcome() => ParseOutcome(this.ReadMessage(MessageType.Outcome));

    /// <summary>Reads the last message and the end of the stream behind it. Nothing is ever left that could not be restored.</summary>
    public DoneStatus ReadDone()
    {
        byte[] body = this.ReadMessage(MessageType.Done);
        OutcomeBody rest = ParseOutcome(body.AsSpan(4));
        Assert.Equal(0u, rest.Failures);
        this.ReadEnd();
        return (DoneStatus)BinaryPrimitives.ReadUInt32BigEndian(body);
    }

    /// <summary>Waits until the server closes, with nothing said before.</summary>
    public void ReadEnd() => Assert.Equal("", this.Socket.ReadToEnd());

    byte[] ReadMessage(MessageType expected)
    {
        byte[] head = this.Socket.ReadExactly(Transactions.HeadSize);
        byte[] body = this.Socket.ReadExactly(BinaryPrimitives.ReadInt32BigEndian(head.AsSpan(1)));
        Assert.Equal(expected, (MessageType)head[0]);
        return body;
    }

    static OutcomeBody ParseOutcome(ReadOnlySpan<byte> body)
    {
        int count = BinaryPrimitives.ReadInt32BigEndian(body[4..]);
        Assert.Equal(Transactions.OutcomeSize + (count * Transactions.EntrySize), body.Length);
        Failure[] entries = new Failure[count];
        for (int i = 0; i < count; i++)
        {
            (byte pif, uint rule, ushort port, Errno error) = Transactions.ReadEntry(body[(Transactions.OutcomeSize + (i * Transactions.EntrySize))..]);
            entries[i] = new(pif, rule, port, error);
        }

        return new(BinaryPrimitives.ReadUInt32BigEndian(body), entries);
    }

    public void Dispose() => this.Socket.Dispose();
}
