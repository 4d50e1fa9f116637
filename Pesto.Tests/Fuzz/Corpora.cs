using Pesto.Linux;
using Pesto.Protocol;
using Pesto.Rules;
using Pesto.Tests.Client;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Fuzz;

/// <summary>What inputs are made from: the streams and command lines that were recorded with the real programs, and messages of our own.</summary>
static class Corpora
{
    const Capabilities All = Capabilities.V4 | Capabilities.V6 | Capabilities.Tcp | Capabilities.Udp | Capabilities.Scan | Capabilities.Interface | Capabilities.Transactions;

    /// <summary>Listings, as servers send them.</summary>
    public static readonly List<byte[]> Listings = [.. RecordedStates(), Listing(1, []), Listing(2, ["80", "8080:81"]), Listing(2, ["0.0.0.0/53:10.0.0.1/54", "40000-40010"])];

    /// <summary>Updates, as clients of either kind send them.</summary>
    public static readonly List<byte[]> Updates = [.. RecordedUpdates(), .. Transaction()];

    /// <summary>What a server that knows transactions says from the listing on, when all goes well and when it does not.</summary>
    public static readonly List<byte[]> Answers = [.. ServersSides()];

    /// <summary>What stands behind -t and the like.</summary>
    public static readonly List<byte[]> Specifiers = [.. RecordedSpecifiers()];

    static IEnumerable<byte[]> RecordedStates() =>
        Enumerable.Range(0, Corpus.Count).Select(i => Corpus.Case(i).State).Distinct().Select(Corpus.State);

    static IEnumerable<byte[]> RecordedUpdates()
    {
        Server.Recording recording = Server.Recording.Load();
        return recording.Cases.Select(one => one.Stream).Append(recording.Base).Select(Convert.FromHexString)
            .Concat(Enumerable.Range(0, Corpus.Count).Select(i => Convert.FromHexString(Corpus.Case(i).Sent ?? ""))).Where(stream => stream.Length > 0);
    }

    static IEnumerable<byte[]> RecordedSpecifiers()
    {
        for (int i = 0; i < Corpus.Count; i++)
        {
            foreach (string argument in Corpus.Case(i).Argv)
            {
                if (!argument.StartsWith('-') && argument != Corpus.Socket)
                    yield return System.Text.Encoding.UTF8.GetBytes(argument);
            }
        }

        foreach (string more in (string[])["none", "all", "auto", "22,~22", "[fe80::1%eth0]/80:[fd00::2]/81", "0.0.0.0/all:10.0.0.1", "*%lo/1-65535:1-65535"])
            yield return System.Text.Encoding.UTF8.GetBytes(more);
    }

    static byte[] Listing(uint version, string[] rules)
    {
        ServerState state = new(version) { Pifs = { new(Pif.Host, Pif.HostName, All), new(Pif.Splice, Pif.SpliceName, All) } };
        foreach (string rule in rules)
            state.Pifs.ForEach(pif => pif.Table.Apply(Specifier.Parse(rule, PortOption.TcpIn, All, PortRange.UsualEphemeral)));
        return state.WriteListing();
    }

    /// <summary>Whole transactions as a client sends them, and their pieces.</summary>
    static IEnumerable<byte[]> Transaction()
    {
        byte[] hello = ControlClient.Hello;
        byte[] update = ServerState.Read(Listing(2, ["80", "8080:81"]), out _)!.WriteUpdate();
        byte[] tables = ControlClient.Message(MessageType.Tables, update), apply = ControlClient.ApplyMessage(1);
        byte[] commit = ControlClient.CommitMessage, rollback = ControlClient.RollbackMessage, unknown = ControlClient.Message((MessageType)0x85, 1, 2, 3);
        yield return [.. hello, .. tables, .. apply, .. commit];
        yield return [.. hello, .. tables, .. apply, .. rollback];
        yield return [.. hello, .. unknown, .. tables, .. unknown, .. apply, .. unknown, .. commit];
        yield return [.. hello, .. tables];
        yield return apply;
        yield return commit;
        yield return rollback;
        yield return unknown;
    }

    static IEnumerable<byte[]> ServersSides()
    {
        byte[] listing = Listing(2, ["80", "8080:81"]);
        byte[] room = new byte[DoneMessage.MostBytes];
        byte[] valid = room[..VerdictMessage.Valid.Write(room)];
        byte[] refused = room[..new VerdictMessage(VerdictStatus.Invalid, Pif.Host, 0, "no \e[31m such port\n").Write(room)];
        byte[] outcome = room[..OutcomeMessage.Write(room, 0, [])];
        byte[] failed = room[..OutcomeMessage.Write(room, 1, [new(Pif.Host, 1, 8080, Errno.EADDRINUSE)])];
        byte[] done = room[..DoneMessage.Write(room, DoneStatus.Committed, 0, [])];
        byte[] skipped = ControlClient.Message((MessageType)0x82, 1, 2, 3);
        yield return [.. listing, .. valid, .. outcome, .. done];
        yield return [.. listing, .. valid, .. skipped, .. failed, .. done];
        yield return [.. listing, .. refused];
        yield return [.. listing, .. valid, .. outcome];
    }
}
