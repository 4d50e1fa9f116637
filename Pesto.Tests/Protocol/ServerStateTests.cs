using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Tests.Protocol;

/// <summary>A server's listing as bytes, and the update that goes back.</summary>
public sealed class ServerStateTests
{
    static readonly Rule Web = Specifier.Parse(
        "127.0.0.1/8080:80", PortOption.TcpIn, Capabilities.V4 | Capabilities.V6, PortRange.UsualEphemeral).Rules[0];

    static byte[] Listing(uint version, params (byte Number, string Name, Rule[] Rules)[] pifs)
    {
        byte[] bytes = new byte[100_000];
        int at = Wire.HelloSize;
        Wire.WriteHello(bytes, version);
        foreach ((byte number, string name, Rule[] rules) in pifs)
        {
            Wire.WritePif(bytes.AsSpan(at), number, name, Capabilities.V4, rules.Length);
            at += Wire.PifSize;
            foreach (Rule rule in rules)
            {
                Wire.WriteRule(bytes.AsSpan(at), in rule, version);
                at += Wire.RuleSizeOf(version);
            }
        }

        return bytes[..(at + 1)];
    }

    static byte[] Usual(uint version = 2) => Listing(version, (Pif.Host, Pif.HostName, [Web]), (Pif.Splice, Pif.SpliceName, []));

    static string Refusal(byte[] listing) => Assert.Throws<ProtocolException>(() => ServerState.Read(listing, out _)).Message;

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public void What_is_listed_comes_back_as_an_update_of_the_same_version(uint version)
    {
        ServerState? state = ServerState.Read(Usual(version), out _);
        Assert.NotNull(state);
        Assert.Equal(version, state.Version);
        Assert.Equal(Web, state.Find("HOST")?.Table.Rules[0]);
        byte[] update = state.WriteUpdate();
        Assert.Equal(1 + (2 * Wire.TableSize) + Wire.RuleSizeOf(version), update.Length);
        Assert.Equal(Pif.Host, update[0]);
        Assert.Equal(Wire.End, update[^1]);
        Assert.Equal(Web, Wire.ReadRule(update.AsSpan(Wire.TableSize), version));
    }

    [Fact]
    public void A_listing_can_come_in_any_pieces()
    {
        byte[] whole = Usual();
        for (int length = 0; length < whole.Length; length++)
        {
            Assert.Null(ServerState.Read(whole.AsSpan(0, length), out int needed));
            Assert.InRange(needed, length + 1, whole.Length);
        }

        Assert.NotNull(ServerState.Read([.. whole, 1, 2, 3], out _));
    }

    [Theory]
    [InlineData(0u)]
    [InlineData(3u)]
    [InlineData(uint.MaxValue)]
    public void Other_versions_are_refused(uint version) => Assert.Contains($"version {version}", Refusal(Usual(version)));

    [Fact]
    public void What_is_no_listing_is_refused()
    {
        Assert.Contains("no control socket", Refusal([.. "HTTP/1.1 400 Bad Request\r\n"u8]));
        byte[] sizes = Usual();
        sizes[15]++;
        Assert.Contains("129", Refusal(sizes));
        byte[] endless = Usual();
        endless.AsSpan(Wire.HelloSize + 1, Wire.PifNameSize).Fill((byte)'H');
        Assert.Contains("does not end", Refusal(endless));
        Assert.Contains("twice", Refusal(Listing(2, (1, "HOST", []), (1, "SPLICE", []))));
        Assert.Contains("twice", Refusal(Listing(2, (1, "HOST", []), (3, "HOST", []))));
    }

    [Fact]
    public void A_server_that_lists_without_end_is_refused_in_time()
    {
        byte[] many = Usual();
        many.AsSpan(Wire.HelloSize + Wire.PifSize - 4, 4).Fill(0xff);
        Assert.Contains("255", Refusal(many));
        Assert.Contains("more than 3", Refusal(Listing(2, (1, "A", []), (2, "B", []), (3, "C", []), (4, "D", []))));
        Rule[] full = [.. Enumerable.Repeat(Web, 255)];
        Assert.Equal(ServerState.MostBytes, Listing(2, (1, "A", full), (2, "B", full), (3, "C", full)).Length);
    }
}
