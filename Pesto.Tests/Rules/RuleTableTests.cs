using Pesto.Rules;

namespace Pesto.Tests.Rules;

/// <summary>What a table takes, and what it does not.</summary>
public sealed class RuleTableTests
{
    const Capabilities All = Capabilities.V4 | Capabilities.V6 | Capabilities.Tcp | Capabilities.Udp | Capabilities.Scan | Capabilities.Interface;

    readonly RuleTable _table = new(All);

    static Specifier Spec(string text, PortOption? option = null) =>
        Specifier.Parse(text, option ?? PortOption.TcpIn, All, PortRange.UsualEphemeral);

    void Add(string text, PortOption? option = null) => _table.Apply(Spec(text, option));

    void Delete(string text) => _table.Apply(Spec(text), delete: true);

    string Refusal(string text) => Assert.Throws<RuleException>(() => Add(text)).Message;

    string[] Listed() => [.. _table.Rules.ToArray().Select(r => RuleText.Text(in r))];

    [Fact]
    public void Rules_stay_in_the_order_in_which_they_came()
    {
        Add("30,10");
        Add("20", PortOption.UdpIn);
        Delete("30");
        Assert.Equal(["TCP [*]:10  =>  10", "UDP [*]:20  =>  20"], Listed());
    }

    [Theory]
    [InlineData("127.0.0.1/80", "127.0.0.1/80:81")]
    [InlineData("127.0.0.1/80", "0.0.0.0/80")]
    [InlineData("127.0.0.1/80", "80")]
    [InlineData("[::1]/80-90", "[::]/85-95")]
    [InlineData("%eth0/80", "%eth1/80")]
    public void Two_rules_for_the_same_traffic_conflict(string first, string second)
    {
        Add(first);
        Assert.Contains("conflicts with TCP", Refusal(second));
        Assert.Single(Listed());
    }

    [Theory]
    [InlineData("127.0.0.1/80", "[::]/80")]
    [InlineData("127.0.0.1/80", "127.0.0.2/80")]
    [InlineData("80-90", "91-95")]
    public void Two_rules_for_other_traffic_do_not(string first, string second)
    {
        Add(first);
        Add(second);
        Assert.Equal(2, Listed().Length);
    }

    [Fact]
    public void Only_the_very_same_rule_is_deleted()
    {
        Add("2000-2010:3000-3010");
        Assert.Contains("but TCP [*]:2000-2010", Assert.Throws<RuleException>(() => Delete("2000-2010")).Message);
        Assert.Contains("there is no rule TCP [*]:1", Assert.Throws<RuleException>(() => Delete("1")).Message);
        Delete("2000-2010:3000-3010");
        Assert.Empty(Listed());
    }

    [Fact]
    public void None_asks_that_there_be_no_rule_of_its_protocol()
    {
        Add("53", PortOption.UdpIn);
        Add("none");
        Add("80");
        Assert.Contains("TCP", Refusal("none"));
    }

    [Theory]
    [InlineData("0", "port 0 can't be forwarded")]
    [InlineData("22:0", "port 0 can't be a target")]
    [InlineData("80:10.0.0.1", "a target address needs a listening address of the same family")]
    [InlineData("0.0.0.0/80:fd00::1", "listening and target address are of different families")]
    [InlineData("0.0.0.0/80:224.0.0.1", "the target is a multicast or broadcast address")]
    public void An_invalid_rule_is_refused_with_the_reason(string text, string reason) => Assert.EndsWith(reason, Refusal(text));

    [Fact]
    public void A_target_of_0_0_0_0_is_none()
    {
        Add("80:0.0.0.0/81");
        Assert.Equal(["TCP [*]:80  =>  81"], Listed());
    }

    [Fact]
    public void A_table_holds_255_rules()
    {
        for (int port = 1; port <= 255; port++)
            Add($"{port}");
        Assert.Contains("255", Refusal("256"));
    }

    [Fact]
    public void A_table_has_at_most_five_times_as_many_sockets_as_there_are_ports()
    {
        for (int i = 0; i < 5; i++)
            Add($"127.0.0.{i}/1-65535");
        Add("127.0.1.1/1-5");
        Assert.Contains("327680", Refusal("127.0.1.2/1"));
    }
}
