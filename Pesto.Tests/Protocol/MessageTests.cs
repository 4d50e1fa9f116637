using Pesto.Linux;
using Pesto.Protocol;

namespace Pesto.Tests.Protocol;

/// <summary>What one end writes is what the other reads, and what is cut or padded is no message.</summary>
public sealed class MessageTests
{
    delegate int Writer(Span<byte> to);

    delegate bool Reader(ReadOnlySpan<byte> body);

    static readonly PortFailure[] Failures = [new(Pif.Host, 1, 8080, Errno.EADDRINUSE), new(Pif.Splice, 254, 65535, Errno.EACCES)];

    [Fact]
    public void A_verdict_is_read_as_it_was_written()
    {
        VerdictMessage written = new(VerdictStatus.Invalid, Pif.Host, 7, "port 0 can't be forwarded");
        Assert.True(VerdictMessage.TryRead(Body(written.Write, MessageType.Verdict), out VerdictMessage read));
        Assert.Equal(written, read);
    }

    [Fact]
    public void A_text_that_is_too_long_is_cut_between_characters()
    {
        VerdictMessage written = new(VerdictStatus.Invalid, 0, VerdictMessage.NoRule, new string('ü', VerdictMessage.LongestText));
        Assert.True(VerdictMessage.TryRead(Body(written.Write, MessageType.Verdict), out VerdictMessage read));
        Assert.Equal(new string('ü', VerdictMessage.LongestText / 2), read.Text);
    }

    [Fact]
    public void An_outcome_is_read_as_it_was_written()
    {
        Assert.True(OutcomeMessage.TryRead(Body(to => OutcomeMessage.Write(to, 5, Failures), MessageType.Outcome), out OutcomeMessage read));
        Assert.Equal(5u, read.Failures);
        Assert.Equal(Failures, read.Named);
    }

    [Fact]
    public void An_end_is_read_as_it_was_written()
    {
        Assert.True(DoneMessage.TryRead(Body(to => DoneMessage.Write(to, DoneStatus.RolledBack, 2, Failures), MessageType.Done), out DoneMessage read));
        Assert.Equal((DoneStatus.RolledBack, 2u), (read.Status, read.Undone.Failures));
        Assert.Equal(Failures, read.Undone.Named);
    }

    [Fact]
    public void An_apply_is_read_as_it_was_written() =>
        Assert.Equal(60u, ApplyMessage.Read(Body(new ApplyMessage(60).Write, MessageType.Apply)).Seconds);

    [Fact]
    public void A_hello_of_another_version_or_with_flags_is_not_understood()
    {
        byte[] hello = new byte[ClientHello.Size];
        ClientHello.Write(hello);
        Assert.True(ClientHello.IsUnderstood(hello));
        for (int i = 0; i < hello.Length; i++)
        {
            byte[] other = [.. hello];
            other[i] ^= 1;
            Assert.False(ClientHello.IsUnderstood(other));
        }
    }

    [Fact]
    public void A_body_of_any_other_length_is_no_message()
    {
        AssertWhole(Body(new VerdictMessage(VerdictStatus.Invalid, 1, 2, "no").Write, MessageType.Verdict), body => VerdictMessage.TryRead(body, out _));
        AssertWhole(Body(to => OutcomeMessage.Write(to, 2, Failures), MessageType.Outcome), body => OutcomeMessage.TryRead(body, out _));
        AssertWhole(Body(to => DoneMessage.Write(to, DoneStatus.Committed, 2, Failures), MessageType.Done), body => DoneMessage.TryRead(body, out _));
    }

    [Fact]
    public void More_named_failures_than_failures_are_no_outcome()
    {
        byte[] body = Body(to => OutcomeMessage.Write(to, 1, Failures), MessageType.Outcome);
        Assert.False(OutcomeMessage.TryRead(body, out _));
    }

    static byte[] Body(Writer write, MessageType type)
    {
        byte[] message = new byte[DoneMessage.MostBytes];
        int length = write(message);
        Assert.Equal(new MessageHead(type, (uint)(length - MessageHead.Size)), MessageHead.Read(message));
        return message[MessageHead.Size..length];
    }

    static void AssertWhole(byte[] body, Reader read)
    {
        Assert.True(read(body));
        for (int length = 0; length < body.Length; length++)
            Assert.False(read(body.AsSpan(0, length)), $"{length} bytes of {body.Length}");
        Assert.False(read([.. body, 0]));
    }
}
