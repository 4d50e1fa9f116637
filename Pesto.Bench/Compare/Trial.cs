using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
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

    readonly Load load;
    readonly double seconds;
    readonly Instance forwarder;
    readonly Child server;

    /// <summary>The processes of the forwarder; null where the kernel forwards.</summary>
    public ProcessTree? Tree { get; }

    public Trial(Load load, Peer peer, double seconds)
    {
        this.load = load;
        this.seconds = seconds;
        this.forwarder = peer.Start(load.Transport);
        try
        {
            this.server = new(Command(["nsenter", "--net=" + this.forwarder.Namespace], "server", load.ServerMode, Topology.ServerPort), conversing: true, compiledAtOnce: true);
            if (this.forwarder.Process is { } process)
                this.Tree = new(process.Id, this.forwarder.Bystanders);
            this.server.Expect("ready", StartLimit);
            this.WaitUntilListening();
        }
        catch
        {
            this.Dispose();
            throw;
        }
    }

    public void Dispose()
    {
        this.server?.Dispose();
        this.forwarder.Dispose();
    }

    /// <summary>Runs the load and takes the figures.</summary>
    public Sample Measure()
    {
        this.Tree?.ResetPeak();
        int descriptors = this.Tree?.Descriptors() ?? 0;
        using Child client = this.StartClient(WarmUp);
        client.Expect("begin", StartLimit + WarmUp + (this.load.Subject == Subject.Idle ? 60 : 0));
        double cpu = this.Tree?.CpuSeconds() ?? 0;
        (long bytes, long datagrams, long time) before = this.ServerCount();
        Sample extra = this.load.Subject switch
        {
            Subject.Idle => this.Hold(client, descriptors),
            Subject.Updates => this.UpdateOverAndOver(),
            Subject.LargeUpdate => this.UpdateLarge(),
            _ => new(),
        };
        client.Expect("end", this.seconds + StartLimit);
        cpu = (this.Tree?.CpuSeconds() ?? 0) - cpu;
        (long bytes, long datagrams, long time) after = this.ServerCount();
        Outcome outcome = JsonSerializer.Deserialize<Outcome>(client.Read(StartLimit))!;
        if (outcome.Error != null)
            return new() { Error = outcome.Error };
        long? peak = this.Tree?.PeakKiB();
        double elapsed = (after.time - before.time) / 1e9;
        return this.load.Subject == Subject.Rate
            ? this.Rate(outcome, after.bytes - before.bytes, after.datagrams - before.datagrams, elapsed, this.Tree == null ? null : cpu) with { PeakKiB = peak }
            : this.Complete(extra, outcome) with { PeakKiB = peak };
    }

    /// <summary>Runs the load without a warm-up and says how many exchanges or connections it completed, for who counts something else meanwhile.</summary>
    public long Count()
    {
        using Child client = this.StartClient(0);
        client.Expect("begin", StartLimit);
        client.Expect("end", this.seconds + StartLimit);
        return JsonSerializer.Deserialize<Outcome>(client.Read(StartLimit))!.Count;
    }

    Child StartClient(double warmUp)
    {
        double length = this.load.Subject == Subject.LargeUpdate ? Math.Max(3, this.seconds) : this.seconds;
        return new(
            Command([], "load", this.load.Traffic, this.forwarder.Address, this.forwarder.Port, this.load.Count, this.load.Size, warmUp, length),
            conversing: true, compiledAtOnce: true);
    }

    static IEnumerable<string> Command(string[] prefix, params object[] arguments) =>
        [.. prefix, .. Isolation.Self, .. arguments.Select(argument => Convert.ToString(argument, CultureInfo.InvariantCulture)!)];

    void WaitUntilListening()
    {
        if (this.forwarder.Process is not { } process)
            return;
        for (Stopwatch waited = Stopwatch.StartNew(); !Topology.IsListening(this.load.Transport); Thread.Sleep(10))
        {
            if (process.HasEnded)
                throw new InvalidOperationException($"the forwarder ended: {process.LastWords}");
            if (waited.Elapsed.TotalSeconds > StartLimit)
                throw new InvalidOperationException($"the forwarder does not listen: {process.LastWords}");
        }
    }

    (long Bytes, long Datagrams, long Time) ServerCount()
    {
        this.server.Write("count");
        long[] fields = [.. this.server.Read(StartLimit).Split(' ').Select(field => long.Parse(field, CultureInfo.InvariantCulture))];
        return (fields[0], fields[1], fields[2]);
    }

    Sample Rate(Outcome outcome, long serverBytes, long serverDatagrams, double serverSeconds, double? cpu)
    {
        bool toServer = this.load.Traffic == TrafficVerbs.Up;
        bool flood = this.load.ServerMode is Server.UdpSink or Server.UdpSinkGro;
        double units = flood ? serverDatagrams : this.load.CarriesBytes ? (toServer ? serverBytes : outcome.Bytes) : outcome.Count;
        double rate = units / (toServer || flood ? serverSeconds : outcome.Seconds);
        Dictionary<string, double> others = [];
        if (flood)
            others["sent/s"] = outcome.Count / outcome.Seconds;
        if (this.load.Traffic == TrafficVerbs.UdpExchange)
            others["lost"] = outcome.Lost;
        long failures = outcome.Refused + outcome.Reset + outcome.Stalled;
        bool timed = outcome.Median > 0;
        return new()
        {
            Value = this.load.CarriesBytes ? rate * 8 / 1e9 : rate,
            Cpu = cpu / (units / (this.load.CarriesBytes ? 1e9 : 1e3)),
            Median = timed ? outcome.Median : null,
            P99 = timed ? outcome.P99 : null,
            Others = others,
            Error = failures > 0 ? $"{outcome.Refused} connections refused, {outcome.Reset} reset, {outcome.Stalled} without an answer"
                : units == 0 ? "nothing got through" : null,
        };
    }

    Sample Hold(Child client, int descriptorsBefore)
    {
        Thread.Sleep(200);
        ProcessTree tree = this.Tree!;
        Sample result = new()
        {
            Others = new()
            {
                ["proportional KiB"] = tree.ProportionalKiB(),
                ["resident KiB"] = tree.ResidentKiB(),
                ["descriptors"] = tree.Descriptors() - descriptorsBefore,
            },
        };
        client.Write("enough");
        return result;
    }

    Sample UpdateOverAndOver()
    {
        ControlClient control = new(this.forwarder.ControlSocket!);
        Rule[] table = control.Read();
        Stopwatch elapsed = Stopwatch.StartNew();
        int updates = 0;
        // It must end before the client does, so that the client sees all of it.
        while (elapsed.Elapsed.TotalSeconds < this.seconds * 0.9)
            control.Update(table, updates++ % 2 == 0 ? [ControlClient.Forward(9000, 9000)] : []);
        return new() { Value = updates / elapsed.Elapsed.TotalSeconds };
    }

    Sample UpdateLarge()
    {
        ControlClient control = new(this.forwarder.ControlSocket!);
        Rule[] table = control.Read();
        Stopwatch elapsed = Stopwatch.StartNew();
        control.Update(table, [ControlClient.Forward(FirstOfMany, FirstOfMany + ManyPorts - 1)]);
        double added = elapsed.Elapsed.TotalMilliseconds;
        Thread.Sleep(300);
        elapsed.Restart();
        control.Update(table, []);
        return new() { Others = new() { ["ms to add"] = added, ["ms to remove"] = elapsed.Elapsed.TotalMilliseconds } };
    }

    Sample Complete(Sample extra, Outcome outcome)
    {
        Dictionary<string, double> others = extra.Others;
        switch (this.load.Subject)
        {
            case Subject.Idle:
                others["held"] = outcome.Count;
                others["descriptors/connection"] = others["descriptors"] / outcome.Count;
                return extra with { Value = others["proportional KiB"] / outcome.Count };
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
