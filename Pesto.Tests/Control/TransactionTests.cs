using System.Net.Sockets;
using Pesto.Linux;
using Pesto.Protocol;
using Pesto.Rules;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Control;

/// <summary>The exchange of a transaction with `pesto serve`, as a client sees it that is not ours: what is said, and what happens if it is said wrongly or not at all.</summary>
public sealed class TransactionTests
{
    static readonly ServerTables Before = ServerTables.Tcp("127.0.0.1/80");
    static readonly ServerTables After = ServerTables.Tcp("127.0.0.1/81", "127.0.0.2/82");

    /// <summary>Everything that a client says that replaces <see cref="Before"/> by <see cref="After"/>.</summary>
    static byte[][] WholeExchange => [ControlClient.Hello, ControlClient.TablesMessage(After), ControlClient.ApplyMessage(), ControlClient.CommitMessage];

    static Rule Changed(string specifier, Func<Rule, Rule> change) => change(ServerTables.Rule(specifier));

    static InterfaceName NoEnd()
    {
        InterfaceName name = default;
        ((Span<byte>)name).Fill((byte)'x');
        return name;
    }

    /// <summary>Tables that are refused: what is wrong, the words that say so, the position of the rule at fault, and the tables.</summary>
    static readonly Dictionary<string, (string Words, uint Rule, ServerTables Tables)> Invalid = new()
    {
        ["port 0"] = ("port 0 can't be forwarded", 0, ServerTables.Host(Changed("80", rule => rule with { First = 0 }))),
        ["reversed ports"] = ("last port comes before the first", 0, ServerTables.Host(Changed("80", rule => rule with { First = 81 }))),
        ["target port 0"] = ("port 0 can't be a target", 1, ServerTables.Host(ServerTables.Rule("79"), Changed("80", rule => rule with { To = 0 }))),
        ["target ports past the end"] = ("run past 65535", 0, ServerTables.Host(Changed("80-82", rule => rule with { To = 65534 }))),
        ["unknown flag"] = ("unknown flag", 0, ServerTables.Host(Changed("80", rule => rule with { Flags = (RuleFlags)8 }))),
        ["unknown protocol"] = ("neither TCP nor UDP", 0, ServerTables.Host(Changed("80", rule => rule with { Protocol = (IpProtocol)1 }))),
        ["interface without end"] = ("interface name without end", 0, ServerTables.Host(Changed("80", rule => rule with { Interface = NoEnd() }))),
        ["dual stack with address"] = ("dual-stack rule can't have a listening address", 0, ServerTables.Host(Changed("80", rule => rule with { Address = Address.LoopbackV6 }))),
        ["dual stack with target"] = ("target address needs", 0, ServerTables.Host(Changed("80", rule => rule with { Target = Address.LoopbackV6 }))),
        ["target of the other family"] = ("different families", 0, ServerTables.Host(Changed("127.0.0.1/80", rule => rule with { Target = Address.LoopbackV6 }))),
        ["multicast target"] = ("multicast or broadcast", 0, ServerTables.Host(Changed("127.0.0.1/80", rule => rule with { Target = Address.FromV4(0xe0000001) }))),
        ["conflict"] = ("conflicts with another rule", 1, ServerTables.Tcp("80-90", "127.0.0.1/85")),
        ["conflict over two parts of a table"] = ("conflicts with another rule", 1, ServerTables.Tcp("80").With(Pif.Host, ServerTables.Rule("80"))),
        ["more than 255 rules"] = ("256 rules, at most 255", VerdictMessage.NoRule, ServerTables.Host([.. Enumerable.Range(1, 256).Select(port => ServerTables.Rule($"{port}"))])),
        ["more than 255 rules in two parts"] = ("at most 255 rules", 255, ServerTables.Host([.. Enumerable.Range(1, 255).Select(port => ServerTables.Rule($"{port}"))]).With(Pif.Host, ServerTables.Rule("1000"))),
        ["pif that is not there"] = ("no pif 2", VerdictMessage.NoRule, new ServerTables().With(2)),
    };

    public static TheoryData<string> InvalidNames => new(Invalid.Keys);

    [Theory]
    [MemberData(nameof(InvalidNames))]
    public void Invalid_tables_are_refused_with_the_reason_and_the_rule_at_fault(string what)
    {
        (string words, uint rule, ServerTables tables) = Invalid[what];
        using Situation situation = new();
        using ControlClient client = ControlClient.Greeted(situation.Path);
        client.Send(ControlClient.Hello);
        client.Send(ControlClient.TablesMessage(tables));
        VerdictMessage verdict = client.ReadVerdict();
        client.ReadEnd();
        Assert.Equal(VerdictStatus.Invalid, verdict.Status);
        Assert.Contains(words, verdict.Text);
        Assert.Equal(rule, verdict.Rule);
        Assert.Equal(tables.Parts[^1].Pif, verdict.Pif);
        situation.IsAsBefore();
    }

    [Fact]
    public void An_update_that_ends_before_its_message_does_or_the_other_way_round_is_refused()
    {
        using Situation situation = new();
        byte[] update = After.Update();
        foreach (byte[] body in new byte[][] { [], update[..^1], update[..20], [.. update, 0], [.. update, 1, 2, 3] })
        {
            using ControlClient client = ControlClient.Greeted(situation.Path);
            client.Send(ControlClient.Hello);
            client.Send(ControlClient.Message(MessageType.Tables, body));
            VerdictMessage verdict = client.ReadVerdict();
            Assert.Equal((VerdictStatus.Invalid, 0, VerdictMessage.NoRule), (verdict.Status, verdict.Pif, verdict.Rule));
            client.ReadEnd();
        }

        situation.IsAsBefore();
    }

    [Fact]
    public void Tables_that_want_more_sockets_than_there_can_be_are_refused()
    {
        using Situation situation = new();
        using ControlClient client = ControlClient.Greeted(situation.Path);
        client.Send(ControlClient.Hello);
        client.Send(ControlClient.TablesMessage(ServerTables.Tcp([.. Enumerable.Range(1, 20).Select(last => $"127.0.0.{last}/1-65535")])));
        VerdictMessage verdict = client.ReadVerdict();
        Assert.Equal(VerdictStatus.TooManySockets, verdict.Status);
        Assert.Contains($"{20 * 65535}", verdict.Text);
        client.ReadEnd();
        situation.IsAsBefore();
    }

    [Fact]
    public void A_rule_that_leads_back_to_the_forwarder_is_refused()
    {
        using Testbed bed = new();
        string path = bed.Folder["control"];
        using RunningForwarder pesto = new(bed, path, bed.Pesto("serve", "-f", "-c", path).Start());
        using ControlClient client = ControlClient.Greeted(path);
        client.Send(ControlClient.Hello);
        client.Send(ControlClient.TablesMessage(ServerTables.Tcp("127.0.0.1/80:81", "127.0.0.1/81:80")));
        Assert.Equal(VerdictStatus.SelfForwarding, client.ReadVerdict().Status);
        client.ReadEnd();
        Assert.Empty(ControlClient.Tables(path).Of(Pif.Host));
    }

    [Fact]
    public void A_transaction_takes_effect_when_it_is_applied_and_ends_when_it_is_committed()
    {
        using Situation situation = new();
        using (ControlClient client = ControlClient.Applied(situation.Path, After))
        {
            Assert.Equal(0u, client.Outcome.Failures);
            Assert.Empty(client.Outcome.Named);
            Assert.True(situation.Bed.Host.Accepts(81));
            // Parked: open, so that nobody else gets the port, and what connects waits.
            Assert.True(situation.Bed.Host.Accepts(80));
            client.Send(ControlClient.CommitMessage);
            Assert.Equal(DoneStatus.Committed, client.ReadDone());
        }

        Assert.False(situation.Bed.Host.Accepts(80));
        Assert.Equal(After, ControlClient.Tables(situation.Path));
    }

    [Fact]
    public void A_port_that_is_taken_is_told_and_the_client_decides()
    {
        using Situation situation = new();
        using TcpService other = TcpService.Echo(situation.Bed.Host, 81);
        using (ControlClient client = ControlClient.Applied(situation.Path, After))
        {
            Assert.Equal(new PortFailure(Pif.Host, 0, 81, Errno.EADDRINUSE), Assert.Single(client.Outcome.Named));
            client.Send(ControlClient.RollbackMessage);
            Assert.Equal(DoneStatus.RolledBack, client.ReadDone());
        }

        situation.IsAsBefore();
        using (ControlClient client = ControlClient.Applied(situation.Path, After))
        {
            client.Send(ControlClient.CommitMessage);
            Assert.Equal(DoneStatus.Committed, client.ReadDone());
        }

        Assert.Equal(After, ControlClient.Tables(situation.Path));
        Assert.Equal([82], situation.Ports);
    }

    [Fact]
    public void Of_many_failures_the_first_1024_are_told_and_all_are_counted()
    {
        using Situation situation = new();
        using (ControlClient client = ControlClient.Applied(situation.Path, ServerTables.Tcp("192.0.2.1/1000-2999")))
        {
            Assert.Equal(2000u, client.Outcome.Failures);
            Assert.Equal(OutcomeMessage.MostNamed, client.Outcome.Named.Length);
            Assert.Equal(new PortFailure(Pif.Host, 0, 2023, Errno.EADDRNOTAVAIL), client.Outcome.Named[^1]);
        }

        situation.IsAsBefore();
    }

    [Fact]
    public void A_weak_rule_fails_only_if_it_gets_no_port_at_all_and_then_counts_once()
    {
        using Situation situation = new();
        Rule weak = Changed("127.0.0.1/81-83", rule => rule with { Flags = RuleFlags.Weak });
        Rule weakAndNowhere = Changed("192.0.2.1/90-93", rule => rule with { Flags = RuleFlags.Weak });
        using TcpService other = TcpService.Echo(situation.Bed.Host, 81), another = TcpService.Echo(situation.Bed.Host, 83);
        using ControlClient client = ControlClient.Applied(situation.Path, ServerTables.Host(weak, weakAndNowhere));
        Assert.Equal(1u, client.Outcome.Failures);
        Assert.Equal(new PortFailure(Pif.Host, 1, 90, Errno.EADDRNOTAVAIL), Assert.Single(client.Outcome.Named));
    }

    [Fact]
    public void A_client_that_hangs_up_changes_nothing_at_whatever_byte_it_does()
    {
        using Situation situation = new();
        byte[] all = [.. WholeExchange.SelectMany(part => part)];
        for (int sent = 0; sent < all.Length; sent++)
        {
            using (ControlClient client = ControlClient.Greeted(situation.Path))
                client.Send(all.AsSpan(0, sent));
            Assert.Equal(Before, ControlClient.Tables(situation.Path));
        }

        situation.IsAsBefore();
        using (ControlClient client = ControlClient.Greeted(situation.Path))
            client.Send(all);
        Assert.Equal(After, ControlClient.Tables(situation.Path));
    }

    [Fact]
    public void A_client_that_hangs_up_in_a_later_message_having_read_the_answers_changes_nothing()
    {
        using Situation situation = new();
        for (int sent = 0; sent < ControlClient.CommitMessage.Length; sent++)
        {
            using (ControlClient client = ControlClient.Applied(situation.Path, After))
                client.Send(ControlClient.CommitMessage.AsSpan(0, sent));
            Assert.Equal(Before, ControlClient.Tables(situation.Path));
        }

        situation.IsAsBefore();
    }

    [Fact]
    public void What_is_sent_ahead_is_answered_in_order()
    {
        using Situation situation = new();
        using ControlClient client = ControlClient.Greeted(situation.Path);
        client.Send([.. WholeExchange.SelectMany(part => part)]);
        Assert.Equal(VerdictStatus.Valid, client.ReadVerdict().Status);
        Assert.Equal(0u, client.ReadOutcome().Failures);
        Assert.Equal(DoneStatus.Committed, client.ReadDone());
        Assert.Equal(After, ControlClient.Tables(situation.Path));
    }

    [Fact]
    public void It_does_not_matter_how_the_bytes_are_cut_into_pieces()
    {
        using Situation situation = new();
        using ControlClient client = ControlClient.Greeted(situation.Path);
        foreach (byte one in WholeExchange.SelectMany(part => part))
            client.Send(one);
        Assert.Equal(VerdictStatus.Valid, client.ReadVerdict().Status);
        Assert.Equal(0u, client.ReadOutcome().Failures);
        Assert.Equal(DoneStatus.Committed, client.ReadDone());
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(100_000)]
    public void Unknown_messages_with_the_high_bit_are_skipped_in_every_state(int length)
    {
        using Situation situation = new();
        byte[] unknown = ControlClient.Message((MessageType)0x80, new byte[length]), another = ControlClient.Message((MessageType)0xff, Enumerable.Repeat((byte)5, length).ToArray());
        using ControlClient client = ControlClient.Greeted(situation.Path);
        client.Send([.. ControlClient.Hello, .. unknown, .. ControlClient.TablesMessage(After)]);
        Assert.Equal(VerdictStatus.Valid, client.ReadVerdict().Status);
        client.Send([.. unknown, .. another, .. ControlClient.ApplyMessage()]);
        Assert.Equal(0u, client.ReadOutcome().Failures);
        client.Send([.. another, .. ControlClient.CommitMessage]);
        Assert.Equal(DoneStatus.Committed, client.ReadDone());
    }

    public enum State
    {
        BeforeTables,
        Staged,
        Applied,
    }

    /// <summary>Messages that make no sense in a state.</summary>
    public static TheoryData<State, byte, int> Senseless
    {
        get
        {
            TheoryData<State, byte, int> all = [];
            foreach (State state in Enum.GetValues<State>())
            {
                for (byte type = 0; type <= 8; type++)
                {
                    if (type != (state switch { State.BeforeTables => 1, State.Staged => 3, _ => 5 }) && !(state == State.Applied && type == 7))
                        all.Add(state, type, type == 3 ? 4 : 0);
                }

                all.Add(state, 0x7f, 3);
            }

            // The right message with a body that it does not have.
            all.Add(State.Staged, 3, 0);
            all.Add(State.Staged, 3, 3);
            all.Add(State.Staged, 3, 5);
            all.Add(State.Staged, 3, -1);
            all.Add(State.Applied, 5, 1);
            all.Add(State.Applied, 7, 4);
            return all;
        }
    }

    [Theory]
    [MemberData(nameof(Senseless))]
    public void A_message_that_makes_no_sense_ends_the_transaction_and_changes_nothing(State state, byte type, int length)
    {
        using Situation situation = new();
        using ControlClient client = ControlClient.Greeted(situation.Path);
        client.Send(ControlClient.Hello);
        if (state != State.BeforeTables)
        {
            client.Send(ControlClient.TablesMessage(After));
            client.ReadVerdict();
        }

        if (state == State.Applied)
        {
            client.Send(ControlClient.ApplyMessage());
            client.ReadOutcome();
        }

        // A length of -1 is one of 4 GiB, announced and not sent.
        client.Send(length < 0 ? [type, 0xff, 0xff, 0xff, 0xff] : ControlClient.Message((MessageType)type, new byte[length]));
        if (state == State.Applied)
            Assert.Equal(DoneStatus.ProtocolError, client.ReadDone());
        else
            client.ReadEnd();
        situation.IsAsBefore();
    }

    [Theory]
    [InlineData("62736173")]
    [InlineData("626173696c3a6300" + "00000002" + "00000000")]
    [InlineData("626173696c3a6300" + "00000001" + "00000001")]
    [InlineData("626173696c3a7300" + "00000001" + "00000000")]
    public void A_hello_of_another_kind_is_refused(string hex)
    {
        using Situation situation = new();
        using ControlClient client = ControlClient.Greeted(situation.Path);
        client.Send([.. Convert.FromHexString(hex), .. new byte[16]]);
        client.ReadEnd();
        situation.IsAsBefore();
    }

    /// <summary>How far a client gets before it says no more.</summary>
    public enum Stall
    {
        BeforeAnything,
        InVersion2Update,
        InHello,
        AfterHello,
        InTables,
        InSkippedMessage,
        Staged,
        InApply,
        Applied,
        InCommit,
    }

    [Theory]
    [InlineData(Stall.BeforeAnything)]
    [InlineData(Stall.InVersion2Update)]
    [InlineData(Stall.InHello)]
    [InlineData(Stall.AfterHello)]
    [InlineData(Stall.InTables)]
    [InlineData(Stall.InSkippedMessage)]
    [InlineData(Stall.Staged)]
    [InlineData(Stall.InApply)]
    [InlineData(Stall.Applied)]
    [InlineData(Stall.InCommit)]
    public void A_client_that_stalls_is_dropped_and_the_next_has_its_turn(Stall at)
    {
        using Situation situation = new("--conf-timeout", "0.2");
        using ControlClient client = ControlClient.Greeted(situation.Path);
        byte[][] all = WholeExchange;
        client.Send(at switch
        {
            Stall.BeforeAnything => [],
            Stall.InVersion2Update => After.Update()[..^1],
            Stall.InHello => all[0][..^1],
            Stall.AfterHello => all[0],
            Stall.InTables => [.. all[0], .. all[1][..^1]],
            Stall.InSkippedMessage => [.. all[0], 0x80, 0, 0, 0, 9, 1],
            Stall.Staged => [.. all[0], .. all[1]],
            Stall.InApply => [.. all[0], .. all[1], .. all[2][..^1]],
            Stall.Applied => [.. all[0], .. all[1], .. all[2]],
            _ => [.. all[0], .. all[1], .. all[2], .. all[3][..^1]],
        });
        situation.IsAsBefore();
        if (at >= Stall.Staged)
            Assert.Equal(VerdictStatus.Valid, client.ReadVerdict().Status);
        if (at >= Stall.Applied)
        {
            Assert.Equal(0u, client.ReadOutcome().Failures);
            Assert.Equal(DoneStatus.TimedOut, client.ReadDone());
        }
        else
        {
            client.ReadEnd();
        }
    }

    [Fact]
    public void A_client_that_dribbles_gets_no_more_time_than_one_that_stalls()
    {
        using Situation situation = new("--conf-timeout", "0.2");
        using ControlClient client = ControlClient.Greeted(situation.Path);
        client.Send(ControlClient.Hello);
        client.Send([0x80, 0, 0xff, 0xff, 0xff]);
        using ControlClient next = new(situation.Path);
        next.Socket.Blocking = false;
        Eventually.True(
            () =>
            {
                try
                {
                    client.Send((byte)0);
                }
                catch (SocketException)
                {
                    return true;
                }

                return false;
            },
            "the client is dropped although it sends a byte now and then");
        next.Socket.Blocking = true;
        Assert.Equal(Before, ServerTables.Of(next.ReadListing()));
    }

    [Fact]
    public void A_client_may_ask_for_more_time_to_confirm_than_it_has_to_stall()
    {
        using Situation situation = new("--conf-timeout", "0.2");
        using ControlClient client = ControlClient.Applied(situation.Path, After, seconds: 60);
        // Another one, with as much time to stall and the clock of another forwarder, is dropped meanwhile.
        using Situation clock = new("--conf-timeout", "0.4");
        using (ControlClient stalling = ControlClient.Greeted(clock.Path))
            stalling.ReadEnd();
        client.Send(ControlClient.CommitMessage);
        Assert.Equal(DoneStatus.Committed, client.ReadDone());
        Assert.Equal(After, ControlClient.Tables(situation.Path));
    }

    [Fact]
    public void A_client_of_version_2_replaces_the_tables_by_sending_them()
    {
        using Situation situation = new();
        using (ControlClient client = ControlClient.Greeted(situation.Path))
        {
            client.Send(After.Update());
            client.ReadEnd();
        }

        Assert.Equal(After, ControlClient.Tables(situation.Path));
        Assert.Equal([81, 82], situation.Ports);
    }

    [Fact]
    public void A_client_of_version_2_can_not_be_told_of_a_failure_so_the_rule_is_listed_and_the_others_serve()
    {
        using Situation situation = new();
        using TcpService other = TcpService.Echo(situation.Bed.Host, 81);
        using (ControlClient client = ControlClient.Greeted(situation.Path))
        {
            client.Send(After.Update());
            client.ReadEnd();
        }

        Assert.Equal(After, ControlClient.Tables(situation.Path));
        Assert.Equal([82], situation.Ports);
        Eventually.True(() => situation.Forwarder.Process.Errors.Contains("TCP 127.0.0.1:81: Address already in use"), "it is said what failed");
    }

    [Fact]
    public void Clients_have_their_turns_in_order_and_each_reads_what_the_one_before_left()
    {
        using Situation situation = new();
        using ControlClient first = ControlClient.Applied(situation.Path, After), second = new(situation.Path), third = new(situation.Path);
        Assert.Equal(0, second.Socket.Available);
        first.Send(ControlClient.CommitMessage);
        Assert.Equal(DoneStatus.Committed, first.ReadDone());
        Assert.Equal(After, ServerTables.Of(second.ReadListing()));
        Assert.Equal(0, third.Socket.Available);
        second.Send(Before.Update());
        second.ReadEnd();
        Assert.Equal(Before, ServerTables.Of(third.ReadListing()));
    }

    /// <summary>A forwarder with the tables that all tests begin with.</summary>
    sealed class Situation : IDisposable
    {
        readonly int _descriptors;

        public Situation(params string[] options)
        {
            Bed = new();
            Forwarder = Bed.Serve(["-t", "127.0.0.1/80", .. options]);
            using ControlClient only = ControlClient.Greeted(Path);
            _descriptors = Forwarder.Process.Descriptors;
        }

        public Testbed Bed { get; }

        public RunningForwarder Forwarder { get; }

        public string Path => Forwarder.Control;

        /// <summary>The ports on which the forwarder listens on the host, in order.</summary>
        public IEnumerable<int> Ports => ListeningSocket.Of(Forwarder.Process, Bed.Host).Select(socket => (int)socket.Port).Order();

        /// <summary>Tables, sockets and descriptors are those of the beginning. Waits for its turn, and so until all clients before are done with.</summary>
        public void IsAsBefore()
        {
            using ControlClient only = ControlClient.Greeted(Path);
            Assert.Equal(Before, ServerTables.Of(only.State!));
            Assert.Equal([80], Ports);
            Assert.Equal(_descriptors, Forwarder.Process.Descriptors);
        }

        public void Dispose()
        {
            Forwarder.Dispose();
            Bed.Dispose();
        }
    }
}
