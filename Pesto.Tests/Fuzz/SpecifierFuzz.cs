using System.Text;
using Pesto.Rules;

namespace Pesto.Tests.Fuzz;

/// <summary>Any text is a list of rules that a table takes or refuses, or an error.</summary>
public sealed class SpecifierFuzz(ITestOutputHelper output)
{
    const string Symbols = "0123456789abcdef:/-,~%[]*.+ ";

    static readonly string[] Words = ["none", "all", "auto", "65535", "65536", "lo", "eth0", "::", "::1", "127.0.0.1", "0.0.0.0", "1-65535", "::ffff:10.0.0.1", "%", "~"];

    static readonly PortOption[] Options = [PortOption.TcpIn, PortOption.UdpIn, PortOption.TcpOut, PortOption.UdpOut];

    [Fact]
    public void Any_text_means_valid_rules_or_an_error()
    {
        Bytes bytes = new(2048);
        char[] text = new char[4096];
        byte[][] corpus = [.. Corpora.Specifiers];
        new Inputs(output, 20_000).Try((ref Chance chance) =>
        {
            Capabilities capabilities = (Capabilities)chance.Next() & (Capabilities)0x1f | Capabilities.Interface;
            RuleTable table = new(capabilities);
            for (int specifiers = 1 + chance.Below(3); specifiers > 0; specifiers--)
            {
                Make(bytes, corpus, ref chance);
                int length = Encoding.UTF8.GetChars(bytes.Span, text);
                PortOption option = chance.Of<PortOption>(Options);
                try
                {
                    Specifier specifier = Specifier.Parse(text.AsSpan(0, length), option, capabilities, PortRange.UsualEphemeral);
                    foreach (Rule rule in specifier.Rules)
                        Assert.True(rule.First <= rule.Last && rule.To + rule.Last - rule.First <= 65535, $"{new string(text, 0, length)}: {rule.First}-{rule.Last} to {rule.To}");
                    table.Apply(specifier, delete: chance.OneIn(8));
                }
                catch (RuleException e)
                {
                    // Words of the user's own come back as he wrote them.
                    Assert.NotEmpty(e.Message);
                }
            }

            foreach (ref readonly Rule rule in table.Rules)
            {
                Assert.Equal(RuleFault.None, RuleCheck.Check(in rule, capabilities));
                ClientFuzz.AssertPrintable(RuleText.Text(in rule));
            }
        });
    }

    static void Make(Bytes bytes, byte[][] corpus, ref Chance chance)
    {
        if (chance.OneIn(4))
        {
            bytes.Set([]);
            for (int parts = chance.Below(16); parts > 0; parts--)
            {
                if (chance.OneIn(2))
                    bytes.Append([(byte)Symbols[chance.Below(Symbols.Length)]]);
                else
                    bytes.Append(Encoding.UTF8.GetBytes(chance.Of<string>(Words)));
            }

            return;
        }

        bytes.Set(chance.Of<byte[]>(corpus));
        if (chance.OneIn(2))
        {
            bytes.Change(ref chance, corpus);
            return;
        }

        for (int changes = 1 + chance.Below(4); changes > 0 && bytes.Length > 0; changes--)
            bytes.Span[chance.Below(bytes.Length)] = (byte)Symbols[chance.Below(Symbols.Length)];
    }
}
