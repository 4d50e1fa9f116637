using System.Buffers.Binary;
using System.Net.Sockets;
using Pesto.Protocol;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Client;

/// <summary>
/// A control socket that says what it was told to, one listing for each connection, and keeps what clients send. After
/// the last listing it is gone, as far as later clients can see.
/// </summary>
sealed class ScriptedServer : IDisposable
{
    readonly TempFolder _folder = new();
    readonly Socket _listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    readonly List<byte[]> _received = [];
    readonly Task _serving;

    public ScriptedServer(params byte[][] listings)
        : this(listings.Select<byte[], Func<Socket, byte[]>>(l => s => Exchange(s, l)).ToArray())
    {
    }

    /// <param name="exchanges">What to do with each connection; what they return is kept as received. The connection is closed after.</param>
    public ScriptedServer(params Func<Socket, byte[]>[] exchanges)
    {
        Path = _folder["control"];
        _listener.Bind(new UnixDomainSocketEndPoint(Path));
        _listener.Listen(5);
        _serving = Task.Factory.StartNew(() => Serve(exchanges), TaskCreationOptions.LongRunning);
    }

    public string Path { get; }

    /// <summary>What the clients sent, by connection, once they have come to an end.</summary>
    public IReadOnlyList<byte[]> Received
    {
        get
        {
            lock (_received)
                return [.. _received];
        }
    }

    void Serve(Func<Socket, byte[]>[] exchanges)
    {
        try
        {
            for (int i = 0; i < exchanges.Length; i++)
            {
                using Socket client = _listener.Accept();
                if (i == exchanges.Length - 1)
                    _listener.Dispose();
                byte[] sent = exchanges[i](client);
                lock (_received)
                    _received.Add(sent);
            }
        }
        catch (SocketException)
        {
            // The test has what it wanted and went away, or its client did.
        }
        catch (ObjectDisposedException)
        {
        }
    }

    /// <summary>Says the listing and nothing more, and reads to the client's end.</summary>
    public static byte[] Exchange(Socket client, byte[] listing)
    {
        client.Send(listing);
        client.Shutdown(SocketShutdown.Send);
        return ReadToEnd(client);
    }

    public static byte[] ReadToEnd(Socket client)
    {
        using MemoryStream all = new();
        byte[] buffer = new byte[4096];
        for (int length; (length = client.Receive(buffer)) > 0;)
            all.Write(buffer, 0, length);
        return all.ToArray();
    }

    /// <summary>The listing as it is after an update of version 2 has been taken: the same pifs with the update's rules.</summary>
    public static byte[] After(byte[] listing, ReadOnlySpan<byte> update)
    {
        Dictionary<byte, byte[]> tables = [];
        for (; update.Length > 0 && update[0] != Wire.End; update = update[(Wire.TableSize + tables[update[0]].Length)..])
        {
            int length = (int)BinaryPrimitives.ReadUInt32BigEndian(update[1..]) * Wire.RuleSize;
            tables[update[0]] = update.Slice(Wire.TableSize, length).ToArray();
        }

        using MemoryStream after = new();
        after.Write(listing, 0, Wire.HelloSize);
        ReadOnlySpan<byte> rest = listing.AsSpan(Wire.HelloSize);
        while (rest[0] != Wire.End)
        {
            byte[] head = rest[..Wire.PifSize].ToArray();
            int rules = (int)BinaryPrimitives.ReadUInt32BigEndian(head.AsSpan(Wire.PifSize - 4));
            rest = rest[(Wire.PifSize + rules * Wire.RuleSize)..];
            byte[] table = tables.GetValueOrDefault(head[0], []);
            BinaryPrimitives.WriteUInt32BigEndian(head.AsSpan(Wire.PifSize - 4), (uint)(table.Length / Wire.RuleSize));
            after.Write(head);
            after.Write(table);
        }

        after.WriteByte(Wire.End);
        return after.ToArray();
    }

    public void Dispose()
    {
        _listener.Dispose();
        _folder.Dispose();
        // A connection that nobody ends is a test's mistake, and not to be waited for without end.
        _serving.Wait(TimeSpan.FromSeconds(1));
    }
}
