using Pesto.Tests.Harness;

namespace Pesto.Tests.Client;

/// <summary>The native program does what was recorded of Debian's pesto: exit status, bytes sent, standard output, and whether it complains.</summary>
public sealed class CorpusTests
{
    public static TheoryData<int, string> Cases => Select(_ => true);

    public static TheoryData<int, string> Updates => Select(r => r.Sent.Length > 0);

    static TheoryData<int, string> Select(Func<Recording, bool> wanted)
    {
        TheoryData<int, string> cases = [];
        for (int i = 0; i < Corpus.Count; i++)
        {
            if (wanted(Corpus.Case(i)))
                cases.Add(i, Corpus.Case(i).ToString());
        }

        return cases;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void As_recorded_with_a_server_that_is_gone_after_one_connection(int index, string name)
    {
        Recording recording = Corpus.Case(index);
        Compare(recording, name, Corpus.State(recording.State));
    }

    [Theory]
    [MemberData(nameof(Updates))]
    public void As_recorded_with_a_server_that_then_shows_the_new_tables(int index, string name)
    {
        Recording recording = Corpus.Case(index);
        byte[] before = Corpus.State(recording.State);
        Compare(recording, name, before, ScriptedServer.After(before, Convert.FromHexString(recording.Sent)));
    }

    static void Compare(Recording recording, string name, params byte[][] listings)
    {
        Assert.SkipWhen(
            recording.DependsOnEphemeralPorts && File.ReadAllText("/proc/sys/net/ipv4/ip_local_port_range").Trim() != Corpus.LocalPortRange,
            "this machine has other ephemeral ports than the one of the recordings");
        using ScriptedServer server = new(listings);
        string[] arguments = [.. recording.Argv.Select(a => a.Replace(Corpus.Socket, server.Path))];
        Finished finished = new Command(Programs.Pesto, arguments).Run();
        Assert.True(recording.Exit == finished.ExitStatus, $"{name}: {finished}");
        if (recording.Stdout != null)
            Assert.Equal(recording.Stdout, finished.Output.Replace(server.Path, Corpus.Socket));
        if (recording.Note == null)
            Assert.True(recording.Stderr == (finished.Errors.Length > 0), $"{name}: {finished}");
        if (recording.Sent.Length > 0)
            Eventually.True(() => server.Received.Count == listings.Length, "the client ends every exchange");
        Assert.Equal(recording.Sent, server.Received.Count > 0 ? Convert.ToHexStringLower(server.Received[0]) : "");
    }
}
