using System.Net.Sockets;
using Pesto.Linux;
using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Tests.Harness;

/// <summary>A client of version 2 that speaks byte by byte, as right or as wrong as a test wants it.</summary>
sealed class ControlClient : IDisposable
{
    readonly Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);

    public ControlClient(string path)
    {
        this.socket.ReceiveTimeout = this.socket.SendTimeout = 60_000;
        this.socket.Connect(new UnixDomainSocketEndPoint(path));
    }

    /// <summary>The tables of the server at this moment.</summary>
    public static ServerState Look(string path)
    {
        using ControlClient client = new(path);
        return client.ReadListing();
    }

    /// <summary>The rules of the inbound table at this moment, as people read them.</summary>
    public static string[] Listed(string path) => [.. Look(path).Pifs[0].Table.Rules.ToArray().Select(rule => RuleText.Text(in rule))];

    /// <summary>Replaces the inbound table by these rules and empties all others; returns when the server has closed.</summary>
    public static void Replace(string path, params Rule[] rules)
    {
        using ControlClient client = new(path);
        client.ReadListing();
        client.Send(Update(rules));
        client.WaitForClose();
    }

    public static Rule Tcp(string address, ushort port, ushort to, string target = "::", RuleFlags flags = RuleFlags.None)
    {
        Assert.True(Address.TryParse(address, out Address on) & Address.TryParse(target, out Address where));
        return new Rule { Address = on, Target = where, First = port, Last = port, To = to, Protocol = IpProtocol.Tcp, Flags = flags };
    }

    /// <summary>The bytes of an update with these rules for the inbound table.</summary>
    public static byte[] Update(params Rule[] rules)
    {
        byte[] bytes = new byte[Wire.TableSize + (rules.Length * Wire.RuleSize) + 1];
        Wire.WriteTable(bytes, Pif.Host, rules.Length);
        for (int i = 0; i < rules.Length; i++)
            Wire.WriteRule(bytes.AsSpan(Wire.TableSize + (i * Wire.RuleSize)), in rules[i]);
        bytes[^1] = Wire.End;
        return bytes;
    }

    public ServerState ReadListing()
    {
        byte[] bytes = new byte[ServerState.MostBytes];
        int length = 0;
        while (true)
        {
            if (ServerState.Read(bytes.AsSpan(0, length), out int needed) is ServerState state)
                return state;
            while (length < needed)
            {
                int more = this.socket.Receive(bytes.AsSpan(length, needed - length));
                if (more == 0)
                    throw new EndOfStreamException("the server hung up before its listing was complete");
                length += more;
            }
        }
    }

    /// <summary>Whether the server has said something that was not read yet.</summary>
    public bool HasAnswer => this.socket.Available > 0;

    public void Send(ReadOnlySpan<byte> bytes)
    {
        while (bytes.Length > 0)
            bytes = bytes[this.socket.Send(bytes)..];
    }

    /// <summary>Sends what the server takes now; how much that was, or -1 if it has hung up.</summary>
    public int SendSome(ReadOnlySpan<byte> bytes)
    {
        this.socket.Blocking = false;
        int sent = this.socket.Send(bytes, SocketFlags.None, out SocketError error);
        this.socket.Blocking = true;
        return error == SocketError.Success ? sent : error == SocketError.WouldBlock ? 0 : -1;
    }

    public void HalfClose() => this.socket.Shutdown(SocketShutdown.Send);

    /// <summary>Waits until the server hangs up; whatever it says before is ignored.</summary>
    public void WaitForClose()
    {
        try
        {
            while (this.socket.Receive(new byte[4096]) > 0)
            {
            }
        }
        catch (SocketException e) when (e.SocketErrorCode == SocketError.ConnectionReset)
        {
        }
    }

    public void Dispose() => this.socket.Dispose();
}
