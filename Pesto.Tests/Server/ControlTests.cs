using System.Net.Sockets;
using Mono.Unix;
using Mono.Unix.Native;
using Pesto.Protocol;
using Pesto.Rules;
using Pesto.Tests.Faults;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Server;

/// <summary>Whatever a client of the control socket does, traffic goes on, the next client has its turn, and only a whole valid update changes anything.</summary>
public sealed class ControlTests
{
    static readonly byte[] HalfAnUpdate = ControlClient.Update(ControlClient.Tcp("127.0.0.1", 9000, 80))[..40];

    static readonly string[] Untouched = ["TCP [127.0.0.1]:8080  =>  80"];

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(5)]
    [InlineData(33)]
    [InlineData(61)]
    public void A_client_that_stalls_in_the_middle_of_an_update_is_dropped_and_traffic_goes_on(int after)
    {
        using Testbed bed = new();
        using Preload preload = new();
        using RunningForwarder pesto = bed.ServeBehind(preload.Before, "-t", "127.0.0.1/8080:80", "--conf-timeout", "5");
        using TcpService service = TcpService.Echo(bed.Container, 80);
        using ConnectLoop clients = new(bed.Host, 8080);
        using ExchangeLoop inUse = new(bed.Host.Connect(8080));
        using ControlClient stalled = new(pesto.Control);
        stalled.ReadListing();
        stalled.Send(ControlClient.Update(ControlClient.Tcp("127.0.0.1", 9000, 80))[..after]);
        using ControlClient first = new(pesto.Control), second = new(pesto.Control);
        clients.WaitForMore(100);
        inUse.WaitForMore(100);
        Assert.False(first.HasAnswer);

        preload.Pass(pesto.Process, 5);
        stalled.WaitForClose();
        Assert.Single(first.ReadListing().Pifs[0].Table.Rules.ToArray());
        Assert.False(second.HasAnswer);
        first.Send(ControlClient.Update(ControlClient.Tcp("127.0.0.1", 8080, 80), ControlClient.Tcp("127.0.0.1", 8081, 80)));
        first.WaitForClose();
        Assert.Equal(2, second.ReadListing().Pifs[0].Table.Rules.Length);
        second.Dispose();
        Assert.True(bed.Host.Accepts(8081));
        inUse.WaitForMore(100);
        clients.Stop();
        Assert.Equal("", clients.Failures);
        Assert.Contains("stalled for 5000 ms", pesto.Process.Errors);
    }

    [Fact]
    public void A_client_that_breaks_off_at_any_byte_of_an_update_changes_nothing()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "127.0.0.1/8080:80");
        byte[] update = ControlClient.Update(ControlClient.Tcp("127.0.0.1", 9000, 80), ControlClient.Tcp("127.0.0.1", 9001, 80));
        for (int length = 0; length < update.Length; length++)
        {
            using ControlClient client = new(pesto.Control);
            if (length % 2 == 0)
                client.ReadListing();
            client.Send(update.AsSpan(0, length));
        }

        Assert.Equal(Untouched, ControlClient.Listed(pesto.Control));
        Assert.Equal(1, pesto.Statistic("commits"));
        Assert.Equal(1, pesto.Statistic("sockets_opened"));
    }

    [Fact]
    public void An_update_may_come_byte_by_byte()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve();
        using TcpService service = TcpService.Says(bed.Container, 80, "inside");
        using ControlClient client = new(pesto.Control);
        client.ReadListing();
        foreach (byte one in ControlClient.Update(ControlClient.Tcp("127.0.0.1", 9000, 80), ControlClient.Tcp("127.0.0.1", 9001, 80)))
            client.Send([one]);
        client.WaitForClose();
        using Socket connected = bed.Host.Connect(9001);
        Assert.Equal("inside", connected.ReadToEnd());
    }

    [Fact]
    public void Bytes_behind_the_end_of_an_update_are_ignored()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve();
        using (ControlClient client = new(pesto.Control))
        {
            client.ReadListing();
            client.Send([.. ControlClient.Update(ControlClient.Tcp("127.0.0.1", 9000, 80)), .. new byte[] { 0, 1, 2, 3, 255 }]);
            client.WaitForClose();
        }

        Assert.Equal(["TCP [127.0.0.1]:9000  =>  80"], ControlClient.Listed(pesto.Control));
    }

    [Fact]
    public void A_table_that_an_update_leaves_out_is_emptied_and_one_that_comes_twice_adds_up()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "127.0.0.1/8080:80");
        using (ControlClient client = new(pesto.Control))
        {
            client.ReadListing();
            byte[] one = ControlClient.Update(ControlClient.Tcp("127.0.0.1", 9000, 80)), other = ControlClient.Update(ControlClient.Tcp("127.0.0.1", 9001, 80));
            client.Send([.. one[..^1], .. other]);
            client.WaitForClose();
        }

        Assert.Equal(["TCP [127.0.0.1]:9000  =>  80", "TCP [127.0.0.1]:9001  =>  80"], ControlClient.Listed(pesto.Control));
        using (ControlClient client = new(pesto.Control))
        {
            client.ReadListing();
            client.Send([0]);
            client.WaitForClose();
        }

        Assert.Empty(ControlClient.Listed(pesto.Control));
        Assert.Equal(0, pesto.Statistic("sockets"));
    }

    [Fact]
    public void Garbage_changes_nothing()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "127.0.0.1/8080:80");
        Random random = new(5);
        for (int i = 0; i < 300; i++)
        {
            using ControlClient client = new(pesto.Control);
            client.ReadListing();
            byte[] garbage = new byte[random.Next(1, 3000)];
            random.NextBytes(garbage);
            // What begins with 0 is the whole of an update that empties the tables; what begins like an update gets further.
            garbage[0] = i % 3 == 0 ? (byte)random.Next(1, 256) : i % 3 == 1 ? Pif.Host : ClientHello.Magic[0];
            if (i % 3 == 1 && garbage.Length > 4)
                garbage[1] = garbage[2] = garbage[3] = 0;
            client.SendSome(garbage);
            if (i % 2 == 0)
                client.Dispose();
            else if (garbage.Length > 100)
                client.WaitForClose();
        }

        Assert.Equal(Untouched, ControlClient.Listed(pesto.Control));
        Assert.Equal(1, pesto.Statistic("commits"));
    }

    [Fact]
    public void Every_single_changed_byte_of_an_update_is_either_a_valid_rule_or_changes_nothing()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve();
        byte[] update = ControlClient.Update(ControlClient.Tcp("127.0.0.1", 9000, 80), ControlClient.Tcp("::1", 9001, 81, "fd00::2"));
        for (int at = 0; at < update.Length; at++)
        {
            foreach (byte value in new byte[] { 0, 1, 0x7f, 0x80, 0xff })
            {
                byte[] changed = [.. update];
                changed[at] = value;
                using ControlClient client = new(pesto.Control);
                client.ReadListing();
                client.Send(changed);
            }
        }

        using ControlClient last = new(pesto.Control);
        last.ReadListing();
        last.Send(ControlClient.Update(ControlClient.Tcp("127.0.0.1", 8080, 80)));
        last.WaitForClose();
        Assert.Equal(Untouched, ControlClient.Listed(pesto.Control));
        Assert.Equal(1, pesto.Statistic("sockets"));
    }

    [Fact]
    public void A_client_that_never_reads_and_never_stops_sending_does_not_hold_up_traffic()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "127.0.0.1/8080:80", "--conf-timeout", "1");
        using TcpService service = TcpService.Echo(bed.Container, 80);
        using ExchangeLoop inUse = new(bed.Host.Connect(8080));
        // Tables without rules, for ever; and, behind a whole update that changes nothing, zeros for ever.
        byte[] empty = [.. Enumerable.Repeat(new byte[] { Pif.Host, 0, 0, 0, 0 }, 40_000).SelectMany(table => table)];
        Flood(pesto, inUse, [], empty, threads: 1);
        Flood(pesto, inUse, ControlClient.Update(ControlClient.Tcp("127.0.0.1", 8080, 80)), new byte[200_000], threads: 4);
        Assert.Equal(Untouched, ControlClient.Listed(pesto.Control));
    }

    /// <summary>Sends without end until the server hangs up, and looks that a connection in use goes on meanwhile.</summary>
    static void Flood(RunningForwarder pesto, ExchangeLoop inUse, byte[] first, byte[] endless, int threads)
    {
        using ControlClient client = new(pesto.Control);
        client.Send(first);
        Thread[] floods = [.. Enumerable.Range(0, threads).Select(_ => new Thread(() =>
        {
            try
            {
                while (true)
                    client.Send(endless);
            }
            catch (SocketException)
            {
                // The server has hung up.
            }
        }))];
        foreach (Thread flood in floods)
            flood.Start();
        inUse.WaitForMore(200);
        foreach (Thread flood in floods)
            Assert.True(flood.Join(TimeSpan.FromSeconds(20)), "the server still listens to a client that never stops");
    }

    [Fact]
    public void Two_hundred_clients_at_once_are_served_in_turn_and_each_adds_to_what_the_one_before_left()
    {
        const int Clients = 200;
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve();
        AtOnce.Run(Clients, i =>
        {
            using ControlClient client = new(pesto.Control);
            ReadOnlySpan<Rule> rules = client.ReadListing().Pifs[0].Table.Rules;
            client.Send(ControlClient.Update([.. rules, ControlClient.Tcp("127.0.0.1", (ushort)(10_000 + i), 80)]));
            client.WaitForClose();
        });
        string[] listed = ControlClient.Listed(pesto.Control);
        Assert.Equal(Enumerable.Range(10_000, Clients).Select(port => $"TCP [127.0.0.1]:{port}  =>  80"), listed.Order());
        Assert.Equal(Clients, pesto.Statistic("sockets"));
    }

    [Fact]
    public void Among_a_thousand_clients_that_stall_one_that_does_not_has_its_turn()
    {
        const int Clients = 1000;
        using Testbed bed = new();
        using TcpService service = TcpService.Echo(bed.Container, 80);
        using RunningForwarder pesto = bed.Serve("-t", "8080:80", "--conf-timeout", "5");
        using ExchangeLoop exchanges = new(bed.Host.Connect(8080));
        using ConnectLoop connections = new(bed.Host, 8080);
        connections.WaitForMore(10);
        ControlClient[] stalled = [.. Enumerable.Range(0, Clients).Select(_ => new ControlClient(pesto.Control))];
        Assert.Equal(0, pesto.Pesto("-A", "-t", "8081:80").ExitStatus);
        Assert.True(bed.Host.Accepts(8081));
        foreach (ControlClient client in stalled)
        {
            client.WaitForClose();
            client.Dispose();
        }

        exchanges.WaitForMore(10);
        Assert.Null(exchanges.Failure);
        Assert.Equal("", connections.Failures);
    }

    [Fact]
    public void Clients_that_wait_and_hang_up_are_passed_over()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "127.0.0.1/8080:80");
        using ControlClient inTurn = new(pesto.Control);
        inTurn.ReadListing();
        for (int i = 0; i < 500; i++)
            new ControlClient(pesto.Control).Dispose();
        using ControlClient patient = new(pesto.Control);
        inTurn.Dispose();
        Assert.Single(patient.ReadListing().Pifs[0].Table.Rules.ToArray());
    }

    [Fact]
    public void A_listing_of_the_most_rules_comes_whole()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve();
        Rule[] most = [.. Enumerable.Range(0, RuleCheck.MostRules).Select(i => ControlClient.Tcp("127.0.0.1", (ushort)(10_000 + i), 80))];
        ControlClient.Replace(pesto.Control, most);
        Assert.Equal(most, ControlClient.Look(pesto.Control).Pifs[0].Table.Rules.ToArray());
        ControlClient.Replace(pesto.Control, [.. most, ControlClient.Tcp("127.0.0.1", 9999, 80)]);
        Assert.Equal(most, ControlClient.Look(pesto.Control).Pifs[0].Table.Rules.ToArray());
    }

    [Fact]
    public void Nobody_but_its_owner_and_root_may_use_the_control_socket()
    {
        Account.NeedOrdinary();
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080");
        Assert.Equal(FileAccessPermissions.UserRead | FileAccessPermissions.UserWrite, new UnixFileInfo(pesto.Control).FileAccessPermissions);
        Command stranger = new Command(Programs.Pesto, pesto.Control).In(bed.Host).As(Account.Ordinary);
        Finished refused = stranger.Run();
        Assert.Equal(1, refused.ExitStatus);
        Assert.Contains("Permission denied", refused.Errors);

        // Even if somebody opens the file to all.
        Syscall.chmod(pesto.Control, NativeConvert.FromOctalPermissionString("666"));
        Assert.Equal(1, stranger.Run().ExitStatus);
        Eventually.True(() => pesto.Process.Errors.Contains($"user {Account.Ordinary.Id}"), "the log says who it was");
        Assert.Equal(0, pesto.Pesto().ExitStatus);
    }

    [Fact]
    public void The_log_says_who_changed_the_tables()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve();
        Assert.Equal(0, pesto.Pesto("-t", "8080").ExitStatus);
        Eventually.True(() => pesto.Process.Errors.Contains("control: user 0 (process "), "the log names the user");
        Assert.Contains("1 opened", pesto.Process.Errors);
    }

    [Fact]
    public void Half_an_update_followed_by_half_a_close_changes_nothing()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "127.0.0.1/8080:80");
        using ControlClient client = new(pesto.Control);
        client.ReadListing();
        client.Send(HalfAnUpdate);
        client.HalfClose();
        client.WaitForClose();
        Assert.Equal(Untouched, ControlClient.Listed(pesto.Control));
    }
}
