using Pesto.Bench.Compare;

namespace Pesto.Bench.Peers;

/// <summary>Something that carries traffic from the client to the server, as the comparison starts it.</summary>
abstract class Peer
{
    public abstract string Name { get; }

    /// <summary>The program, or null if it is not installed.</summary>
    public abstract string? Program { get; }

    /// <summary>How to get it.</summary>
    public abstract string Installation { get; }

    /// <summary>Whether it is a forwarder, or one of the limits: the kernel's own forwarding, and none.</summary>
    public virtual bool IsForwarder => true;

    public virtual bool CarriesUdp => true;

    /// <summary>Whether it takes new tables through a control socket.</summary>
    public virtual bool HasControl => false;

    /// <summary>Why it can't be used although it is installed, or null.</summary>
    public virtual string? Obstacle => null;

    public abstract string Version { get; }

    public abstract Instance Start(Transport transport);

    /// <summary>All of them, in the order in which they are shown.</summary>
    public static IReadOnlyList<Peer> All { get; } =
        [new PestoServe(), new Pasta(), new RootlessKit(), new HAProxy(), new Nginx(), new Socat(), new KernelNat(), new NoForwarder()];

    /// <summary>The first word with a digit in what a program says about itself.</summary>
    protected static string VersionIn(params string[] command) => Tool.Try(command).Text
        .Split([' ', '\n', '\t', '/', ','], StringSplitOptions.RemoveEmptyEntries).FirstOrDefault(word => word.Any(char.IsDigit)) ?? "?";
}

/// <summary>A peer that runs, until it is disposed of.</summary>
sealed class Instance(Child? process = null) : IDisposable
{
    /// <summary>Null where the kernel does the work.</summary>
    public Child? Process => process;

    /// <summary>Where the client connects.</summary>
    public string Address { get; init; } = Topology.ListenAddress;

    public ushort Port { get; init; } = Topology.ListenPort;

    /// <summary>Where the server belongs.</summary>
    public string Namespace { get; init; } = Topology.TargetNamespace;

    public string? ControlSocket { get; init; }

    /// <summary>Processes that belong to it but forward nothing.</summary>
    public string[] Bystanders { get; init; } = [];

    /// <summary>What else there is to undo.</summary>
    public Action? Undo { get; init; }

    public void Dispose()
    {
        process?.Dispose();
        Undo?.Invoke();
    }
}
