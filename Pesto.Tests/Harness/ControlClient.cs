using System.Net.Sockets;
using Pesto.Linux;
using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Tests.Harness;

/// <summary>A client of the control protocol, of version 2 or with transactions, byte by byte: it can stop, break off or err wherever a test wants it to.</summary>
sealed class ControlClient : IDisposable
{
    public ControlClient(string path)
    {
        Socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { SendTimeout = 60_000, ReceiveTimeout = 60_000 };
        Socket.Connect(new UnixDomainSocketEndPoint(path));
    }

    public Socket Socket { get; }

    /// <summary>What the server listed when this client had its turn; null before.</summary>
    public ServerState? State { get; private set; }

    /// <summary>What applying came to, for a client that has applied.</summary>
    public OutcomeMessage Outcome { get; private set; }

    /// <summary>Whether the server has said something that was not read yet.</summary>
    public bool HasAnswer => Socket.Available > 0;

    // Whole exchanges.

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

    /// <summary>The tables of the server at this moment.</summary>
    public static ServerState Look(string path)
    {
        using ControlClient client = Greeted(path);
        return client.State!;
    }

    /// <summary>The same, to compare with others.</summary>
    public static ServerTables Tables(string path) => ServerTables.Of(Look(path));

    /// <summary>The rules of the inbound table at this moment, as people read them.</summary>
    public static string[] Listed(string path) => [.. Look(path).Pifs[0].Table.Rules.ToArray().Select(rule => RuleText.Text(in rule))];

    /// <summary>Replaces the tables in one transaction; fails if a port fails.</summary>
    public static void Replace(string path, ServerTables tables)
    {
        using ControlClient client = Applied(path, tables);
        Assert.Equal(0u, client.Outcome.Failures);
        client.Send(CommitMessage);
        Assert.Equal(DoneStatus.Committed, client.ReadDone());
    }

    /// <summary>Replaces the inbound table by these rules and empties all others, by version 2; returns when the server has closed.</summary>
    public static void Replace(string path, params Rule[] rules)
    {
        using ControlClient client = Greeted(path);
        client.Send(Update(rules));
        client.WaitForClose();
    }

    // What a client may send.

    public static Rule Tcp(string address, ushort port, ushort to, string target = "::", RuleFlags flags = RuleFlags.None)
    {
        Assert.True(Address.TryParse(address, out Address on) & Address.TryParse(target, out Address where));
        return new Rule { Address = on, Target = where, First = port, Last = port, To = to, Protocol = IpProtocol.Tcp, Flags = flags };
    }

    /// <summary>The bytes of an update with these rules for the inbound table.</summary>
    public static byte[] Update(params Rule[] rules) => ServerTables.Host(rules).Update();

    public static byte[] Hello
    {
        get
        {
            byte[] hello = new byte[ClientHello.Size];
            ClientHello.Write(hello);
            return hello;
        }
    }

    /// <summary>A message of any type, with any body.</summary>
    public static byte[] Message(MessageType type, params ReadOnlySpan<byte> body)
    {
        byte[] message = new byte[MessageHead.Size + body.Length];
        body.CopyTo(message.AsSpan(new MessageHead(type, (uint)body.Length).Write(message)));
        return message;
    }

    public static byte[] TablesMessage(ServerTables tables) => Message(MessageType.Tables, tables.Update());

    public static byte[] ApplyMessage(uint seconds = 0)
    {
        byte[] message = new byte[Pesto.Protocol.ApplyMessage.Size];
        new Pesto.Protocol.ApplyMessage(seconds).Write(message);
        return message;
    }

    public static byte[] CommitMessage => Message(MessageType.Commit);

    public static byte[] RollbackMessage => Message(MessageType.Rollback);

    public void Send(params ReadOnlySpan<byte> bytes)
    {
        while (!bytes.IsEmpty)
            bytes = bytes[Socket.Send(bytes)..];
    }

    /// <summary>Sends what the server takes now; how much that was, or -1 if it has hung up.</summary>
    public int SendSome(ReadOnlySpan<byte> bytes)
    {
        Socket.Blocking = false;
        int sent = Socket.Send(bytes, SocketFlags.None, out SocketError error);
        Socket.Blocking = true;
        return error == SocketError.Success ? sent : error == SocketError.WouldBlock ? 0 : -1;
    }

    public void HalfClose() => Socket.Shutdown(SocketShutdown.Send);

    // What the server answers.

    public ServerState ReadListing()
    {
        byte[] listing = [];
        ServerState? state;
        while ((state = ServerState.Read(listing, out int needed)) == null)
            listing = [.. listing, .. Socket.ReadExactly(needed - listing.Length)];
        State = state;
        return state;
    }

    public VerdictMessage ReadVerdict()
    {
        Assert.True(VerdictMessage.TryRead(ReadMessage(MessageType.Verdict), out VerdictMessage verdict));
        return verdict;
    }

    public OutcomeMessage ReadOutcome()
    {
        Assert.True(OutcomeMessage.TryRead(ReadMessage(MessageType.Outcome), out OutcomeMessage outcome));
        return outcome;
    }

    /// <summary>Reads the last message and the end of the stream behind it. Nothing is ever left that could not be restored.</summary>
    public DoneStatus ReadDone()
    {
        Assert.True(DoneMessage.TryRead(ReadMessage(MessageType.Done), out DoneMessage done));
        Assert.Equal(0u, done.Undone.Failures);
        ReadEnd();
        return done.Status;
    }

    /// <summary>Waits until the server closes, with nothing said before.</summary>
    public void ReadEnd() => Assert.Equal("", Socket.ReadToEnd());

    /// <summary>Waits until the server hangs up; whatever it says before is ignored.</summary>
    public void WaitForClose()
    {
        try
        {
            while (Socket.Receive(new byte[4096]) > 0)
            {
            }
        }
        catch (SocketException e) when (e.SocketErrorCode == SocketError.ConnectionReset)
        {
        }
    }

    byte[] ReadMessage(MessageType expected)
    {
        MessageHead head = MessageHead.Read(Socket.ReadExactly(MessageHead.Size));
        byte[] body = Socket.ReadExactly((int)head.Length);
        Assert.Equal(expected, head.Type);
        return body;
    }

    public void Dispose() => Socket.Dispose();
}
