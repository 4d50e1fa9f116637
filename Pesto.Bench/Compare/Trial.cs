using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using Pesto.Bench.Peers;
using Pesto.Bench.Traffic;
using Pesto.Rules;

namespace Pesto.Bench.Compare;

/// <summary>One run: a fresh forwarder, a fresh server behind it and a fresh client before it, under one load.</summary>
sealed class Trial : IDisposable
{
    const double WarmUp = 0.4;
    const double StartLimit = 10;
    const int ManyPorts = 10_000;
    const ushort FirstOfMany = 10_000;

    readonly Load _load;
    readonly double _seconds;
    readonly Instance _forwarder;
    readonly Child _server;

    /// <summary>The processes of the forwarder; null where the kernel forwards.</summary>
    public ProcessTree? Tree { get; }

    public Trial(Load load, Peer peer, double seconds)
    {
        _load = load;
        _seconds = seconds;
        _forwarder = peer.Start(load.Transport);
        try
        {
            if (_forwarder.Namespace != Topology.TargetNamespace)
                Topology.UseCongestionControl("nsenter", "--net=" + _forwarder.Namespace);
            _server = new("the server", Command(["nsenter", "--net=" + _forwarder.Namespace], "server", load.ServerMode, Topology.ServerPort), conversing: true, compiledAtOnce: true);
            if (_forwarder.Process is { } process)
                Tree = new(process.Id, _forwarder.Bystanders);
            _server.Expect("ready", StartLimit);
            WaitUntilListening();
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    public void Dispose()
    {
        _server?.Dispose();
        _forwarder.Dispose();
    }

    /// <summary>Runs the load and takes the figures.</summary>
    public Sample Measure()
    {
        Tree?.ResetPeak();
        int descriptors = Tree?.Descriptors() ?? 0;
        double before = (Tree?.ProportionalKiB() ?? 0) / 1024.0;
        using Child client = StartClient(WarmUp);
        client.Expect("begin", StartLimit + WarmUp + (_load.Subject == Subject.Idle ? 60 : 0));
        double cpu = Tree?.CpuSeconds() ?? 0;
        (long bytes, long datagrams, long time) first = ServerCount();
        Sample extra = _load.Subject switch
        {
            Subject.Idle => Hold(client, descriptors, before),
            Subject.Updates => UpdateOverAndOver(),
            Subject.LargeUpdate => UpdateLarge(),
            _ => new(),
        };
        client.Expect("end", _seconds + StartLimit);
        (long bytes, long datagrams, long time) last = ServerCount();
        cpu = (Tree?.CpuSeconds() ?? 0) - cpu;
        Outcome outcome = Outcome.FromJson(client.Read(StartLimit));
        if ((outcome.Error ?? extra.Error) is { } error)
            return new() { Error = error };
        long? peak = Tree?.PeakKiB();
        double elapsed = (last.time - first.time) / 1e9;
        return _load.Subject == Subject.Rate
            ? Rate(outcome, last.bytes - first.bytes, last.datagrams - first.datagrams, elapsed, Tree == null ? null : cpu) with { PeakKiB = peak }
            : Complete(extra, outcome) with { PeakKiB = peak };
    }

    /// <summary>Has somebody watch the forwarder while the load is on, and says how many exchanges or connections that saw.</summary>
    /// <param name="attach">Begins watching; what it returns ends it.</param>
    public double CountWhile(Func<ProcessTree, Action> attach)
    {
        using Child client = StartClient(WarmUp);
        client.Expect("begin", StartLimit + WarmUp);
        Action detach = attach(Tree!);
        (long bytes, _, _) = ServerCount();
        Thread.Sleep(TimeSpan.FromSeconds(_seconds / 2));
        long exchanged = ServerCount().Bytes - bytes;
        detach();
        return (double)exchanged / _load.Size;
    }

    Child StartClient(double warmUp)
    {
        double length = _load.Subject == Subject.LargeUpdate ? Math.Max(3, _seconds) : _seconds;
        return new(
            "the client", Command(Topology.InClientNamespace, "load", _load.Traffic, _forwarder.Address, _forwarder.Port, _load.Count, _load.Size, warmUp, length),
            conversing: true, compiledAtOnce: true);
    }

    static IEnumerable<string> Command(string[] prefix, params object[] arguments) =>
        [.. prefix, .. Isolation.Self, .. arguments.Select(argument => Convert.ToString(argument, CultureInfo.InvariantCulture)!)];

    void WaitUntilListening()
    {
        if (_forwarder.Process is not { } process)
            return;
        for (Stopwatch waited = Stopwatch.StartNew(); !Topology.IsListening(_load.Transport); Thread.Sleep(10))
        {
            if (process.HasEnded)
                throw new InvalidOperationException($"the forwarder ended: {process.LastWords}");
            if (waited.Elapsed.TotalSeconds > StartLimit)
                throw new InvalidOperationException($"the forwarder does not listen: {process.LastWords}");
        }
    }

    (long Bytes, long Datagrams, long Time) ServerCount()
    {
        _server.Write("count");
        long[] fields = [.. _server.Read(StartLimit).Split(' ').Select(field => long.Parse(field, CultureInfo.InvariantCulture))];
        return (fields[0], fields[1], fields[2]);
    }

    Sample Rate(Outcome outcome, long serverBytes, long serverDatagrams, double serverSeconds, double? cpu)
    {
        bool toServer = _load.Traffic == TrafficVerbs.Up;
        bool flood = _load.ServerMode is Server.UdpSink or Server.UdpSinkGro;
        double units = flood ? serverDatagrams : _load.CarriesBytes ? (toServer ? serverBytes : outcome.Bytes) : outcome.Count;
        double rate = units / (toServer || flood ? serverSeconds : outcome.Seconds);
        Dictionary<string, double> others = [];
        if (flood)
            others["sent/s"] = outcome.Count / outcome.Seconds;
        if (_load.Traffic == TrafficVerbs.UdpExchange)
            others["lost"] = outcome.Lost;
        long failures = outcome.Refused + outcome.Reset + outcome.Stalled;
        bool timed = outcome.Median > 0;
        return new()
        {
            Value = _load.CarriesBytes ? rate * 8 / 1e9 : rate,
            Cpu = cpu / (units / (_load.CarriesBytes ? 1e9 : 1e3)),
            Median = timed ? outcome.Median : null,
            P99 = timed ? outcome.P99 : null,
            Others = others,
            Error = failures > 0 ? $"{outcome.Refused} connections refused, {outcome.Reset} reset, {outcome.Stalled} without an answer"
                : units == 0 ? "nothing got through" : null,
        };
    }

    Sample Hold(Child client, int descriptorsBefore, double before)
    {
        Thread.Sleep(200);
        ProcessTree tree = Tree!;
        // Shared pages divided among those that share them: else a forwarder of many processes would be charged for each of them anew.
        double now = tree.ProportionalKiB() / 1024.0;
        Sample result = new()
        {
            Value = now,
            Others = new()
            {
                ["MiB without connections"] = before,
                ["MiB with shared pages"] = tree.ResidentKiB() / 1024.0,
                ["descriptors"] = tree.Descriptors() - descriptorsBefore,
            },
        };
        client.Write("enough");
        return result;
    }

    Sample UpdateOverAndOver()
    {
        PortTables tables = new(_forwarder.ControlSocket!);
        Rule[] before = tables.Inbound();
        Stopwatch elapsed = Stopwatch.StartNew();
        int updates = 0;
        // It must end before the client does, so that the client sees all of it.
        while (elapsed.Elapsed.TotalSeconds < _seconds * 0.9)
            tables.Replace(before, updates++ % 2 == 0 ? [PortTables.Forward(9000, 9000)] : []);
        return new() { Value = updates / elapsed.Elapsed.TotalSeconds };
    }

    Sample UpdateLarge()
    {
        PortTables tables = new(_forwarder.ControlSocket!);
        Rule[] before = tables.Inbound();
        Stopwatch elapsed = Stopwatch.StartNew();
        tables.Replace(before, PortTables.Forward(FirstOfMany, FirstOfMany + ManyPorts - 1));
        double added = elapsed.Elapsed.TotalMilliseconds;
        Thread.Sleep(300);
        bool open = Accepts(FirstOfMany + ManyPorts - 1);
        elapsed.Restart();
        tables.Replace(before);
        if (!open)
            return new() { Error = "the ports that were added are not open" };
        return new() { Others = new() { ["ms to add"] = added, ["ms to remove"] = elapsed.Elapsed.TotalMilliseconds } };
    }

    static bool Accepts(int port)
    {
        using TcpClient client = new();
        try
        {
            client.Connect(Topology.Loopback, port);
            return true;
        }
        catch (SocketException)
        {
            return false;
        }
    }

    Sample Complete(Sample extra, Outcome outcome)
    {
        Dictionary<string, double> others = extra.Others;
        switch (_load.Subject)
        {
            case Subject.Idle:
                others["held"] = outcome.Count;
                others["descriptors/connection"] = others["descriptors"] / outcome.Count;
                return extra;
            case Subject.Updates:
                others["refused"] = outcome.Refused;
                others["reset"] = outcome.Reset;
                others["no answer"] = outcome.Stalled;
                others["connections"] = outcome.Attempts;
                return extra;
            default:
                return extra with { Value = outcome.Longest / 1e3, Median = outcome.Median, P99 = outcome.P99 };
        }
    }
}
