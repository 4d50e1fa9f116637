using Pesto.Bench.Compare;

namespace Pesto.Bench.Peers;

/// <summary>
/// RootlessKit with its builtin port driver. It makes its own namespace, so the server goes there. slirp4netns is there because
/// RootlessKit wants a network driver; the traffic that is measured does not pass it.
/// </summary>
sealed class RootlessKit : Peer
{
    const string State = "/run/rootlesskit";
    const string Subordinates = "/run/subordinates";

    public override string Name => "rootlesskit";

    public override string? Program { get; } = Tool.Find("slirp4netns") == null || Tool.Find("newuidmap") == null ? null : Tool.Find("rootlesskit");

    public override string Installation => "apt-get install rootlesskit slirp4netns uidmap";

    public override string? Obstacle => Isolation.IsRoot ? null : "is not able to run inside a user namespace: run the comparison as root";

    public override string Version => VersionIn(Program!, "--version");

    public override Instance Start(Transport transport)
    {
        // It asks for a range of subordinate users, which root usually has not. The mounts are this run's own.
        if (!File.Exists(Subordinates))
        {
            File.WriteAllText(Subordinates, "root:100000:65536\n");
            Tool.Run("touch", "/etc/subuid", "/etc/subgid");
            Tool.Run("mount", "--bind", Subordinates, "/etc/subuid");
            Tool.Run("mount", "--bind", Subordinates, "/etc/subgid");
        }

        if (Directory.Exists(State))
            Directory.Delete(State, recursive: true);
        string protocol = transport == Transport.Tcp ? "tcp" : "udp";
        string ports = $"{Topology.ListenAddress}:{Topology.ListenPort}:{Topology.ServerPort}/{protocol}";
        Child process = new(
            Name,
        [
            "env", "XDG_RUNTIME_DIR=/run", Program!, "--state-dir", State, "--net=slirp4netns", "--disable-host-loopback",
            "--copy-up=/etc", "--port-driver=builtin", "-p", ports, "sleep", "infinity",
        ]);
        try
        {
            return new(process) { Namespace = $"/proc/{ChildId(process)}/ns/net", Bystanders = ["slirp4netns", "sleep"] };
        }
        catch (InvalidOperationException)
        {
            process.Dispose();
            throw;
        }
    }

    static string ChildId(Child process)
    {
        for (int i = 0; i < 250 && !process.HasEnded; i++)
        {
            if (File.Exists(State + "/child_pid") && File.ReadAllText(State + "/child_pid").Trim() is { Length: > 0 } id)
                return id;
            Thread.Sleep(20);
        }

        throw new InvalidOperationException($"rootlesskit did not start: {process.LastWords}");
    }
}
