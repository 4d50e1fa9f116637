using Pesto.Rules;

namespace Pesto.Tests.Rules;

public sealed class PortSetTests
{
    [Fact]
    public void Gaps_are_what_a_set_leaves_of_a_range()
    {
        PortSet set = new();
        set.Add(new(0, 9));
        set.Add(new(63, 64));
        set.Add(new(65535, 65535));
        Assert.Equal([new(10, 62), new(65, 65534)], Gaps(set, new(1, 65535)));
        Assert.Equal([], Gaps(set, new(63, 64)));
        Assert.Equal([new(12, 12)], Gaps(set, new(12, 12)));
    }

    [Theory]
    [InlineData("32768\t60999\n", 32768, 60999)]
    [InlineData("1024 65535", 1024, 65535)]
    public void The_systems_ephemeral_ports_can_be_read(string text, ushort first, ushort last)
    {
        Assert.True(PortRange.TryParseSysctl(text, out PortRange range));
        Assert.Equal(new(first, last), range);
    }

    [Theory]
    [InlineData("")]
    [InlineData("32768")]
    [InlineData("60999 32768")]
    [InlineData("x y")]
    public void What_is_no_range_is_not_taken(string text) => Assert.False(PortRange.TryParseSysctl(text, out _));

    static List<PortRange> Gaps(PortSet set, PortRange within)
    {
        List<PortRange> gaps = [];
        int from = within.First;
        while (set.NextGap(within, ref from, out PortRange gap))
            gaps.Add(gap);
        return gaps;
    }
}
