using Pesto.Tests.Harness;

namespace Pesto.Tests.Interop;

/// <summary>What our client says of ports that can't be opened, with either server.</summary>
public sealed class OutcomeTests
{
    [Theory]
    [InlineData("9000", 9000)]
    [InlineData("10000-19999", 18999)]
    public void Of_our_forwarder_a_taken_port_is_named_and_all_is_as_before(string wanted, int port)
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80", "-u", "5353:53");
        string table = pesto.Pesto().Output, sockets = Sockets(bed);
        using TcpService taken = TcpService.Echo(bed.Host, port);
        string said = $"pesto: TCP *:{port}: Address already in use\npesto: {pesto.Control}: rolled back, the tables are as before\n";
        Assert.Equal(new Finished(1, "", said), pesto.Pesto("-A", "-t", wanted));
        taken.Dispose();
        Assert.Equal(table, pesto.Pesto().Output);
        Eventually.Equal(sockets, () => Sockets(bed));
    }

    [Fact]
    public void Of_our_forwarder_best_effort_takes_what_there_is_and_names_the_rest()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve();
        using TcpService taken = TcpService.Echo(bed.Host, 9001);
        Finished finished = pesto.Pesto("-A", "--best-effort", "-t", "9000-9002");
        Assert.Contains(":9001: Address already in use", finished.Errors);
        Assert.True(bed.Host.Accepts(9000) && bed.Host.Accepts(9002));
    }

    [Theory]
    [InlineData(null, "9000", "Address already in use")]
    [InlineData("", "9000", "Address already in use")]
    [InlineData("", "80", "Permission denied")]
    [Needs("pasta", "pesto")]
    public void Of_the_real_pasta_a_port_that_is_not_to_be_had_is_named_and_the_table_left_alone(string? user, string port, string reason)
    {
        if (user != null)
            Account.NeedOrdinary();
        using Testbed bed = new(user == null ? null : Account.Ordinary);
        using RunningForwarder pasta = bed.ServeRealPasta();
        Assert.Equal(0, pasta.Pesto("-t", "8080").ExitStatus);
        string table = pasta.RealPesto().Output, sockets = Sockets(bed);
        using TcpService? taken = port == "80" ? null : TcpService.Echo(bed.Host, int.Parse(port));
        Finished refused = pasta.Pesto("-A", "-t", port);
        Assert.Equal(1, refused.ExitStatus);
        Assert.Contains($":{port}: {reason}", refused.Errors);
        Assert.Equal(table, pasta.RealPesto().Output);
        taken?.Dispose();
        Eventually.Equal(sockets, () => Sockets(bed));
    }

    [Theory]
    [InlineData("9000")]
    [InlineData("80")]
    [Needs("pasta", "pesto")]
    public void Of_the_real_pasta_without_a_look_before_nothing_is_said_as_by_the_real_client(string port)
    {
        Account.NeedOrdinary();
        (int Status, string Table)[] both = new (int, string)[2];
        for (int i = 0; i < both.Length; i++)
        {
            using Testbed bed = new(Account.Ordinary);
            using RunningForwarder pasta = bed.ServeRealPasta();
            using TcpService? taken = port == "80" ? null : TcpService.Echo(bed.Host, int.Parse(port));
            Finished finished = i == 0 ? pasta.RealPesto("-A", "-t", port) : pasta.Pesto("-A", "--no-probe", "-t", port);
            both[i] = (finished.ExitStatus, pasta.RealPesto().Output.Replace(bed.Folder.Path, ""));
        }

        Assert.Equal(both[0], both[1]);
        Assert.Equal(0, both[0].Status);
    }

    [Theory]
    [InlineData("192.0.2.1/9000", "Cannot assign requested address")]
    [InlineData("%nosuch/9000", "No such device")]
    [Needs("pasta", "pesto")]
    public void Of_the_real_pasta_what_is_not_there_to_listen_on_is_named_and_the_table_left_alone(string wanted, string reason)
    {
        using Testbed bed = new();
        using RunningForwarder pasta = bed.ServeRealPasta();
        string table = pasta.RealPesto().Output;
        Finished refused = pasta.Pesto("-A", "-t", wanted);
        Assert.Equal(1, refused.ExitStatus);
        Assert.Contains($":9000: {reason}", refused.Errors);
        Assert.Equal(table, pasta.RealPesto().Output);
    }

    /// <summary>All of them, with the numbers by which the kernel knows them.</summary>
    static string Sockets(Testbed bed) =>
        string.Join('\n', new Command("ss", "-Hltune").In(bed.Host).RunOrFail().Split('\n').Select(line => string.Join(' ', line.Split(' ', StringSplitOptions.RemoveEmptyEntries))).Order());
}
