using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Tests.Rules;

/// <summary>Whose traffic a listening socket gets, as a table of what the kernel does.</summary>
public sealed class ListenAddressTests
{
    static ListenAddress Parse(string text)
    {
        string[] parts = text.Split('%');
        bool dual = parts[0] == "*";
        Address address = Address.Any;
        Assert.True(dual || Address.TryParse(parts[0], out address));
        InterfaceName name = default;
        Assert.True(parts.Length == 1 || InterfaceName.TryParse(parts[1], out name));
        return new(IpProtocol.Tcp, address, dual, name, 80);
    }

    static Address Destination(string text) => Address.TryParse(text, out Address address) ? address : throw new ArgumentException(text);

    [Theory]
    [InlineData("127.0.0.1", "127.0.0.1", true)]
    [InlineData("127.0.0.1", "127.0.0.2", false)]
    [InlineData("127.0.0.1", "::1", false)]
    [InlineData("0.0.0.0", "127.0.0.1", true)]
    [InlineData("0.0.0.0", "10.0.0.1", true)]
    [InlineData("0.0.0.0", "::1", false)]
    [InlineData("::", "::1", true)]
    [InlineData("::", "2001:db8::1", true)]
    [InlineData("::", "127.0.0.1", false)]
    [InlineData("::1", "::1", true)]
    [InlineData("::1", "::2", false)]
    [InlineData("*", "127.0.0.1", true)]
    [InlineData("*", "::1", true)]
    public void It_serves_its_own_address_or_any_of_its_family(string local, string destination, bool serves) =>
        Assert.Equal(serves, Parse(local).Serves(Destination(destination)));

    [Theory]
    [InlineData("127.0.0.1", true, false)]
    [InlineData("0.0.0.0", true, false)]
    [InlineData("::", false, true)]
    [InlineData("::1", false, true)]
    [InlineData("*", true, true)]
    public void Clients_of_both_families_come_to_dual_stack_sockets_alone(string local, bool v4, bool v6) =>
        Assert.Equal((v4, v6), (Parse(local).HasFamily(isV4: true), Parse(local).HasFamily(isV4: false)));

    [Theory]
    [InlineData("127.0.0.1", "127.0.0.1", true)]
    [InlineData("127.0.0.1", "127.0.0.2", false)]
    [InlineData("127.0.0.1", "0.0.0.0", true)]
    [InlineData("127.0.0.1", "::1", false)]
    [InlineData("127.0.0.1", "::", false)]
    [InlineData("127.0.0.1", "*", true)]
    [InlineData("0.0.0.0", "0.0.0.0", true)]
    [InlineData("0.0.0.0", "::", false)]
    [InlineData("0.0.0.0", "*", true)]
    [InlineData("::1", "::", true)]
    [InlineData("::1", "*", true)]
    [InlineData("::", "::", true)]
    [InlineData("::", "*", true)]
    [InlineData("*", "*", true)]
    [InlineData("127.0.0.1%lo", "127.0.0.1", true)]
    [InlineData("0.0.0.0%lo", "127.0.0.1%eth0", true)]
    [InlineData("127.0.0.1%lo", "127.0.0.2%lo", false)]
    public void Sockets_overlap_if_something_would_come_to_either(string one, string other, bool overlap)
    {
        ListenAddress a = Parse(one), b = Parse(other);
        Assert.Equal(overlap, a.Overlaps(in b));
        Assert.Equal(overlap, b.Overlaps(in a));
        Assert.False(a.Overlaps(b with { Port = 81 }));
        Assert.False(a.Overlaps(b with { Protocol = IpProtocol.Udp }));
    }

    [Theory]
    [InlineData("127.0.0.1", "127.0.0.1", true)]
    [InlineData("127.0.0.1", "0.0.0.0", false)]
    [InlineData("0.0.0.0", "127.0.0.1", true)]
    [InlineData("0.0.0.0", "0.0.0.0%lo", true)]
    [InlineData("0.0.0.0%lo", "0.0.0.0", false)]
    [InlineData("0.0.0.0%lo", "127.0.0.1%lo", true)]
    [InlineData("0.0.0.0%lo", "0.0.0.0%eth0", false)]
    [InlineData("0.0.0.0", "*", false)]
    [InlineData("::", "*", false)]
    [InlineData("::", "::1", true)]
    [InlineData("::", "127.0.0.1", false)]
    [InlineData("*", "::", true)]
    [InlineData("*", "0.0.0.0", true)]
    [InlineData("*", "127.0.0.1", true)]
    [InlineData("*", "*%lo", true)]
    [InlineData("*%lo", "*", false)]
    public void One_includes_another_if_all_that_comes_there_would_come_to_it(string one, string other, bool includes)
    {
        ListenAddress a = Parse(one), b = Parse(other);
        Assert.Equal(includes, a.Includes(in b));
        Assert.False(a.Includes(b with { Port = 81 }));
        Assert.False(a.Includes(b with { Protocol = IpProtocol.Udp }));
    }

    [Fact]
    public void Two_are_the_same_only_if_all_of_it_is()
    {
        ListenAddress one = Parse("::%lo");
        Assert.Equal(Parse("::%lo"), one);
        foreach (ListenAddress other in new[] { Parse("*%lo"), Parse("::"), Parse("::1%lo"), one with { Port = 81 }, one with { Protocol = IpProtocol.Udp } })
            Assert.NotEqual(other, one);
    }

    [Theory]
    [InlineData("127.0.0.1", "TCP 127.0.0.1:80")]
    [InlineData("::1%lo", "TCP [::1]%lo:80")]
    [InlineData("*", "TCP *:80")]
    public void Errors_name_it(string local, string text) => Assert.Equal(text, Parse(local).ToString());

    [Fact]
    public void A_socket_that_the_kernel_lists_is_dual_stack_unless_it_is_for_IPv6_only()
    {
        BoundSocket socket = new() { Address = Address.Any, Port = 80 };
        Assert.True(ListenAddress.Of(IpProtocol.Tcp, in socket).IsDualStack);
        socket.V6Only = true;
        Assert.False(ListenAddress.Of(IpProtocol.Tcp, in socket).IsDualStack);
        socket = new() { Address = Address.LoopbackV6, Port = 80 };
        Assert.False(ListenAddress.Of(IpProtocol.Tcp, in socket).IsDualStack);
    }
}
