using Pesto.Rules;

namespace Pesto.Tests.Rules;

/// <summary>What specifiers mean, as the rules that come of them.</summary>
public sealed class SpecifierTests
{
    const Capabilities All = Capabilities.V4 | Capabilities.V6 | Capabilities.Tcp | Capabilities.Udp | Capabilities.Scan | Capabilities.Interface;

    static readonly PortRange Ephemeral = new(32768, 60999);

    static string Rules(string text, PortOption? option = null, Capabilities capabilities = All) =>
        string.Join("; ", Specifier.Parse(text, option ?? PortOption.TcpIn, capabilities, Ephemeral).Rules.Select(r => RuleText.Text(in r).Replace("  =>  ", " to ").Replace("  ", " ")));

    static string Refusal(string text, PortOption? option = null, Capabilities capabilities = All) =>
        Assert.Throws<RuleException>(() => Specifier.Parse(text, option ?? PortOption.TcpIn, capabilities, Ephemeral)).Message;

    [Theory]
    [InlineData("22", "TCP [*]:22 to 22")]
    [InlineData("22:23", "TCP [*]:22 to 23")]
    [InlineData("22,25", "TCP [*]:22 to 22; TCP [*]:25 to 25")]
    [InlineData("22-80", "TCP [*]:22-80 to 22-80")]
    [InlineData("22-80:32-90", "TCP [*]:22-80 to 32-90")]
    [InlineData("5:6,9-11:19-21", "TCP [*]:5 to 6; TCP [*]:9-11 to 19-21")]
    [InlineData("022", "TCP [*]:22 to 22")]
    [InlineData("+22, 25", "TCP [*]:22 to 22; TCP [*]:25 to 25")]
    public void Ports_go_to_the_same_ports_or_those_given(string text, string rules) => Assert.Equal(rules, Rules(text));

    [Theory]
    [InlineData("192.0.2.1/22", "TCP [192.0.2.1]:22 to 22")]
    [InlineData("192.0.2.1%eth0/22", "TCP [192.0.2.1]%eth0:22 to 22")]
    [InlineData("%eth0/22", "TCP [*]%eth0:22 to 22")]
    [InlineData("*%eth0/22", "TCP [*]%eth0:22 to 22")]
    [InlineData("*/22", "TCP [*]:22 to 22")]
    [InlineData("/22", "TCP [*]:22 to 22")]
    [InlineData("::1/22", "TCP [::1]:22 to 22")]
    [InlineData("[::1]/22", "TCP [::1]:22 to 22")]
    [InlineData("[192.0.2.1]%eth0/22", "TCP [192.0.2.1]%eth0:22 to 22")]
    [InlineData("[::]/22", "TCP [::]:22 to 22")]
    [InlineData("0.0.0.0/22", "TCP [0.0.0.0]:22 to 22")]
    [InlineData("::ffff:192.0.2.1/22", "TCP [192.0.2.1]:22 to 22")]
    public void An_address_and_an_interface_can_stand_before_the_ports(string text, string rules) => Assert.Equal(rules, Rules(text));

    [Theory]
    [InlineData("0.0.0.0/8080:10.89.0.2/80", "TCP [0.0.0.0]:8080 to 10.89.0.2:80")]
    [InlineData("0.0.0.0/8080:10.89.0.2", "TCP [0.0.0.0]:8080 to 10.89.0.2:8080")]
    [InlineData("[::]/8080:[fd00::2]/80", "TCP [::]:8080 to fd00::2:80")]
    [InlineData("[::]/8080:fd00::2/80", "TCP [::]:8080 to fd00::2:80")]
    [InlineData("192.0.2.1%eth0/2222-2225:192.0.2.2/22-25", "TCP [192.0.2.1]%eth0:2222-2225 to 192.0.2.2:22-25")]
    [InlineData("0.0.0.0/80:81,90:10.0.0.1/91", "TCP [0.0.0.0]:80 to 81; TCP [0.0.0.0]:90 to 10.0.0.1:91")]
    [InlineData("0.0.0.0/all:10.0.0.1", "TCP [0.0.0.0]:1-32767 to 10.0.0.1:1-32767 (best effort); TCP [0.0.0.0]:61000-65535 to 10.0.0.1:61000-65535 (best effort)")]
    public void A_target_address_is_for_the_item_that_has_it(string text, string rules) => Assert.Equal(rules, Rules(text));

    [Theory]
    [InlineData("5-25,~10-20", "TCP [*]:5-9 to 5-9; TCP [*]:21-25 to 21-25")]
    [InlineData("10-20:30-40,~15", "TCP [*]:10-14 to 30-34; TCP [*]:16-20 to 36-40")]
    [InlineData("~15,10-20", "TCP [*]:10-14 to 10-14; TCP [*]:16-20 to 16-20")]
    [InlineData("22,~22", "")]
    [InlineData("~1-65535", "")]
    public void Exclusions_split_ranges_wherever_they_stand(string text, string rules) => Assert.Equal(rules, Rules(text));

    [Theory]
    [InlineData("all", "TCP [*]:1-32767 to 1-32767 (best effort); TCP [*]:61000-65535 to 61000-65535 (best effort)")]
    [InlineData("~25", "TCP [*]:1-24 to 1-24 (best effort); TCP [*]:26-32767 to 26-32767 (best effort); TCP [*]:61000-65535 to 61000-65535 (best effort)")]
    [InlineData("auto,~1-32767", "TCP [*]:61000-65535 to 61000-65535 (best effort) (auto-scan)")]
    [InlineData("::1/auto", "TCP [::1]:1-32767 to 1-32767 (best effort) (auto-scan); TCP [::1]:61000-65535 to 61000-65535 (best effort) (auto-scan)")]
    public void All_is_what_is_not_ephemeral_as_far_as_it_can_be_had(string text, string rules) => Assert.Equal(rules, Rules(text));

    [Theory]
    [InlineData("all,80", "TCP [*]:80 to 80")]
    [InlineData("8000-8010,auto", "TCP [*]:8000-8010 to 8000-8010 (auto-scan)")]
    [InlineData("1-65535", "TCP [*]:1-65535 to 1-65535")]
    public void Who_names_ports_wants_them_and_no_others(string text, string rules) => Assert.Equal(rules, Rules(text));

    [Fact]
    public void None_has_no_rules_and_stands_alone()
    {
        Specifier none = Specifier.Parse("none", PortOption.UdpIn, All, Ephemeral);
        Assert.True(none.IsNone);
        Assert.Empty(none.Rules);
        Assert.Contains("alone", Refusal("none,22"));
        Refusal("127.0.0.1/none");
    }

    [Theory]
    [InlineData(Capabilities.V4, "22", "TCP [0.0.0.0]:22 to 22")]
    [InlineData(Capabilities.V6, "22", "TCP [::]:22 to 22")]
    [InlineData(Capabilities.V4, "80:10.0.0.1/81", "TCP [0.0.0.0]:80 to 10.0.0.1:81")]
    [InlineData(Capabilities.V6, "80:fd00::1", "TCP [::]:80 to fd00::1:80")]
    public void Any_address_is_of_the_families_that_there_are(Capabilities families, string text, string rules) =>
        Assert.Equal(rules, Rules(text, capabilities: families | Capabilities.Tcp));

    [Fact]
    public void Outbound_ports_listen_on_loopback()
    {
        Assert.Equal("TCP [*]%lo:22 to 23", Rules("22:23", PortOption.TcpOut));
        Assert.Equal("UDP [*]%lo:53 to 53 (auto-scan)", Rules("53,auto", PortOption.UdpOut));
        Assert.Contains("no listening address", Refusal("127.0.0.1/22", PortOption.TcpOut));
        Assert.Contains("no listening address", Refusal("%lo/22", PortOption.TcpOut));
    }

    [Fact]
    public void Outbound_ports_listen_on_the_loopback_addresses_where_interfaces_cant_be_bound_to()
    {
        Specifier specifier = Specifier.Parse("5-7,~6", PortOption.TcpOut, All & ~Capabilities.Interface, Ephemeral);
        Assert.True(specifier.IsByLoopbackAddress);
        Assert.Equal(
            ["TCP [127.0.0.1]:5  =>  5", "TCP [127.0.0.1]:7  =>  7", "TCP [::1]:5  =>  5", "TCP [::1]:7  =>  7"],
            specifier.Rules.Select(r => RuleText.Text(in r)));
    }

    [Fact]
    public void What_the_table_cant_do_is_refused()
    {
        Assert.Contains("auto", Refusal("auto", capabilities: All & ~Capabilities.Scan));
        Assert.Contains("interface", Refusal("%eth0/22", capabilities: All & ~Capabilities.Interface));
    }

    [Theory]
    [InlineData("22-80:32-89", "the 59 ports 22-80 can't go to the 58 ports 32-89")]
    [InlineData("22:22-23", "port 22 can't go to the 2 ports 22-23")]
    [InlineData("25-22", "the range 25-22 ends before it begins")]
    [InlineData("65536", "\"65536\" has a port beyond 65535")]
    [InlineData("99999999999999999999", "\"99999999999999999999\" has a port beyond 65535")]
    [InlineData("22,,25", "a port is missing")]
    [InlineData("22-", "\"22-\" lacks a port number")]
    [InlineData("localhost/22", "\"localhost/22\" is neither ports nor an address and ports")]
    [InlineData("127.0.0.1%a.very.long.name/22", "\"a.very.long.name\" can't be the name of an interface")]
    [InlineData("80:nowhere/80", "\"nowhere\" is no address")]
    [InlineData("all:80", "\"80\" is no address")]
    public void A_refusal_says_what_is_wrong(string text, string reason) => Assert.Equal(reason, Refusal(text));

    [Theory]
    [InlineData("")]
    [InlineData("22,")]
    [InlineData("22-")]
    [InlineData("-22")]
    [InlineData("22:")]
    [InlineData("22:23:24")]
    [InlineData("22 ")]
    [InlineData("0x16")]
    [InlineData("autox")]
    [InlineData("auto:5")]
    [InlineData("~80:81")]
    [InlineData("~")]
    [InlineData("%/22")]
    [InlineData("%../22")]
    [InlineData("192.0.2.1%1234567890123456/22")]
    [InlineData("192.0.2/22")]
    [InlineData("[::1/22")]
    [InlineData("[::1%lo]/22")]
    [InlineData("127.0.0.1/")]
    [InlineData("0.0.0.0/80:10.0.0.1%eth0/80")]
    public void What_is_no_specifier_is_refused(string text) => Refusal(text);
}
