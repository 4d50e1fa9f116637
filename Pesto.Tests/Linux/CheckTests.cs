using Pesto.Linux;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Linux;

public sealed class CheckTests
{
    [Fact]
    public void An_index_beyond_an_array_is_found()
    {
        NativeArray<int> array = new(3);
        array[2] = 1;
        Assert.Throws<CheckFailedException>(() => array[3]);
        Assert.Throws<CheckFailedException>(() => array[-1]);
    }

    [Fact]
    public void Checks_are_in_the_program_that_is_to_have_them_and_not_in_the_other()
    {
        const string Text = "an index is within its array";
        Assert.True(Contains(Programs.Checked, Text));
        Assert.False(Contains(Programs.Pesto, Text));
    }

    // The compiler keeps texts in UTF-16, and leaves out zeros at their end.
    static bool Contains(string program, string text) => File.ReadAllBytes(program).AsSpan().IndexOf(System.Text.Encoding.Unicode.GetBytes(text)[..^1]) >= 0;
}
