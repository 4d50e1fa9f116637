using System.Net.Sockets;
using Mono.Unix.Native;

namespace Pesto.Tests.Harness;

/// <summary>One test's own little world: a host, a container on it, and a folder. Client and forwarder run on the host.</summary>
sealed class Testbed : IDisposable
{
    public Testbed(Account? owner = null)
    {
        Owner = owner;
        Host = NetworkNamespace.Create();
        Container = owner == null ? NetworkNamespace.Create() : NetworkNamespace.CreateContainer(Host, owner);
        if (owner != null)
            Folder.GiveTo(owner);
    }

    /// <summary>Whose container it is, and who runs the forwarder; none for root.</summary>
    public Account? Owner { get; }

    public NetworkNamespace Host { get; }

    public NetworkNamespace Container { get; }

    public TempFolder Folder { get; } = new();

    /// <summary>What `pesto` is here.</summary>
    public string Program { get; init; } = Programs.Pesto;

    /// <summary>A `pesto` on the host.</summary>
    public Command Pesto(params string[] arguments) => new Command(Program, arguments).In(Host).As(Owner);

    /// <summary>Starts `pesto serve` for the container and waits until it answers.</summary>
    public RunningForwarder Serve(params string[] arguments) => ServeInto(["--netns", Container.Name ?? Container.Path], arguments);

    /// <summary>Starts `pesto serve` with the target named by options of the test's choice.</summary>
    public RunningForwarder ServeInto(string[] target, params string[] arguments)
    {
        string control = Folder["control"];
        return new RunningForwarder(this, control, Pesto(["serve", "-f", "-c", control, .. arguments, .. target]).Start());
    }

    /// <summary>Starts `pesto serve` for the container behind other commands that end in executing it.</summary>
    public RunningForwarder ServeBehind(string[] before, params string[] arguments) =>
        ServeWith(before, ["--netns", Container.Name ?? Container.Path, .. arguments]);

    /// <summary>The same, with the target too named by options.</summary>
    public RunningForwarder ServeWith(string[] before, params string[] arguments)
    {
        string control = Folder["control"];
        string[] words = [.. before, Program, "serve", "-f", "-c", control, .. arguments];
        return new RunningForwarder(this, control, new Command(words[0], words[1..]).In(Host).As(Owner).Start());
    }

    /// <summary>Starts `pesto serve` without a namespace: it listens and connects on the host.</summary>
    public RunningForwarder ServeOnHost(params string[] arguments)
    {
        string control = Folder["control"];
        return new RunningForwarder(this, control, Pesto(["serve", "-f", "-c", control, .. arguments]).Start());
    }

    /// <summary>
    /// Starts the real pasta, which forwards nothing until it is told to. Limited to splicing, it needs no uplink and leaves
    /// the container's network as it is.
    /// </summary>
    public RunningForwarder ServeRealPasta()
    {
        string control = Folder["control"];
        // As root it would change to "nobody", who may not enter the container.
        string[] target = Owner == null ? ["--runas", "0", "--netns", Container.Name!] : [$"{Container.HolderId}"];
        Command pasta = new(Programs.RealPasta, ["-f", "-c", control, "--splice-only", "-t", "none", "-u", "none", "-T", "none", "-U", "none", .. target]);
        return new RunningForwarder(this, control, pasta.In(Host).As(Owner).Start());
    }

    public void Dispose()
    {
        Container.Dispose();
        Host.Dispose();
        Folder.Dispose();
    }
}

/// <summary>A running forwarder, ours or the real pasta, behind its control socket.</summary>
sealed class RunningForwarder : IDisposable
{
    readonly Testbed _bed;

    public RunningForwarder(Testbed bed, string control, BackgroundProcess process)
    {
        _bed = bed;
        Control = control;
        Process = process;
        try
        {
            process.WaitUntil(Answers, "it answers on its control socket");
        }
        catch
        {
            process.Dispose();
            throw;
        }
    }

    /// <summary>The path of its control socket.</summary>
    public string Control { get; }

    public BackgroundProcess Process { get; }

    /// <summary>What our client does with it, given these options.</summary>
    public Finished Pesto(params string[] options) => _bed.Pesto([.. options, Control]).Run();

    /// <summary>What the real client does with it.</summary>
    public Finished RealPesto(params string[] options) =>
        new Command(Programs.RealPesto, [.. options, Control]).In(_bed.Host).As(_bed.Owner).Run();

    /// <summary>The counters at this moment, of ours.</summary>
    public Dictionary<string, long> Statistics()
    {
        int before = StatisticsLines().Length;
        Process.Signal(Signum.SIGUSR1);
        Process.WaitUntil(() => StatisticsLines().Length > before, "it prints its counters");
        return StatisticsLines()[^1].Split(' ').Select(pair => pair.Split('=')).ToDictionary(pair => pair[0], pair => long.Parse(pair[1]));
    }

    public long Statistic(string name) => Statistics()[name];

    string[] StatisticsLines()
    {
        const string Marker = "stats: ";
        string all = Process.Errors;
        string[] lines = all[..(all.LastIndexOf('\n') + 1)].Split('\n');
        return [.. lines.Where(line => line.Contains(Marker)).Select(line => line[(line.IndexOf(Marker) + Marker.Length)..])];
    }

    /// <summary>
    /// Whether it greets a client. It takes connections earlier, but only when its loop runs is everything open and all privileges
    /// given up. By the end of the stream it has closed its side too.
    /// </summary>
    bool Answers()
    {
        if (!File.Exists(Control))
            return false;
        try
        {
            using Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { ReceiveTimeout = 20_000 };
            socket.Connect(new UnixDomainSocketEndPoint(Control));
            socket.Shutdown(SocketShutdown.Send);
            return socket.ReadToEnd() != "";
        }
        catch (SocketException)
        {
            return false;
        }
    }

    public void Dispose() => Process.Dispose();
}
