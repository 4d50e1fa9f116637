using System.Net;
using System.Net.Sockets;
using System.Runtime.ExceptionServices;
using Microsoft.Win32.SafeHandles;
using Mono.Unix.Native;
using Pesto.Linux;

namespace Pesto.Tests.Harness;

/// <summary>
/// A network of a test's own, with nothing in it but a loopback interface that is up: its ports belong to this test
/// alone, so that all tests may run at once and use the port numbers that they like.
/// </summary>
sealed class NetworkNamespace : IDisposable
{
    const string Folder = "/run/netns";
    const string Prefix = "pesto-test-";
    const int NetworkNamespaces = 0x40000000; // CLONE_NEWNET

    static int _created;

    readonly BackgroundProcess? _holder;

    static NetworkNamespace()
    {
        // The first one in the way of `ip netns`, which has the folder's mounts shared with other mount namespaces.
        string first = NewName();
        new Command("ip", "netns", "add", first).RunOrFail();
        new Command("ip", "netns", "delete", first).RunOrFail();
        // Test runs that were killed leave namespaces behind; a name tells which process made it.
        foreach (string path in Directory.GetFiles(Folder, $"{Prefix}*"))
        {
            if (!Directory.Exists($"/proc/{System.IO.Path.GetFileName(path)[Prefix.Length..].Split('-')[0]}"))
                NamedNamespace.Delete(path);
        }
    }

    NetworkNamespace(string path, string? name, BackgroundProcess? holder)
    {
        Path = path;
        Name = name;
        _holder = holder;
    }

    /// <summary>The file that stands for it, for `--netns`.</summary>
    public string Path { get; }

    /// <summary>Its name for `ip netns` and `--netns`; none for a container of an ordinary user's.</summary>
    public string? Name { get; }

    /// <summary>A namespace with a name, as `ip netns add` makes it.</summary>
    public static NetworkNamespace Create()
    {
        Assert.True(Syscall.geteuid() == 0, "tests with network namespaces run as root, or by ./build.sh test, which gives an ordinary user a namespace where he is");
        string name = NewName();
        string path = System.IO.Path.Combine(Folder, name);
        NamedNamespace.Create(path);
        return new NetworkNamespace(path, name, null);
    }

    static string NewName() => $"{Prefix}{Environment.ProcessId}-{Interlocked.Increment(ref _created)}";

    /// <summary>
    /// What a rootless container is: a user namespace of an ordinary user's, who is root in there, and a network namespace that belongs to it.
    /// A process that waits for the end of its input holds it, so that it goes when the test does, however that ends.
    /// </summary>
    public static NetworkNamespace CreateContainer(NetworkNamespace host, Account owner)
    {
        BackgroundProcess holder = new Command("unshare", "-Urn", "sh", "-c", "ip link set lo up && echo ready && exec cat").In(host).As(owner).Start();
        holder.WaitUntil(() => holder.Output == "ready\n", "the container is there");
        return new NetworkNamespace($"/proc/{holder.Id}/ns/net", null, holder);
    }

    /// <summary>The process that holds an ordinary user's container.</summary>
    public int HolderId => _holder?.Id ?? throw new InvalidOperationException($"{Path} is held by its name");

    /// <summary>
    /// The command by which a process that <see cref="Run"/> starts becomes somebody. An ordinary user has all rights in his own container,
    /// by way of its user namespace.
    /// </summary>
    public string[] Become(Account? who) => _holder != null && who != null
        ? [.. who.Become, "nsenter", "--preserve-credentials", "-U", "-n", "-t", $"{HolderId}", "--"]
        : who?.Become ?? [];

    /// <summary>Runs code on a thread that is in here. A socket or process stays where it was made, so only the making needs this.</summary>
    public T Run<T>(Func<T> code)
    {
        T result = default!;
        ExceptionDispatchInfo? failure = null;
        Thread thread = new(() =>
        {
            try
            {
                using SafeFileHandle handle = File.OpenHandle(Path);
                Result.Of(Libc.setns((int)handle.DangerousGetHandle(), NetworkNamespaces)).OrThrow($"setns {Path}");
                result = code();
            }
            catch (Exception e)
            {
                failure = ExceptionDispatchInfo.Capture(e);
            }
        });
        thread.Start();
        thread.Join();
        failure?.Throw();
        return result;
    }

    public Socket NewSocket(AddressFamily family, SocketType type) => Run(() => new Socket(family, type, ProtocolType.Unspecified));

    /// <summary>A TCP connection from in here. Throws what the kernel said if there is none to be had.</summary>
    public Socket Connect(IPEndPoint to)
    {
        Socket socket = NewSocket(to.AddressFamily, SocketType.Stream);
        try
        {
            socket.NoDelay = true;
            socket.SendTimeout = socket.ReceiveTimeout = 20_000;
            socket.Connect(to);
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    public Socket Connect(int port) => Connect(new IPEndPoint(IPAddress.Loopback, port));

    /// <summary>A UDP socket in here that talks to one address.</summary>
    public Socket ConnectUdp(IPEndPoint to)
    {
        Socket socket = NewSocket(to.AddressFamily, SocketType.Dgram);
        socket.SendTimeout = socket.ReceiveTimeout = 20_000;
        socket.Connect(to);
        return socket;
    }

    public Socket ConnectUdp(int port) => ConnectUdp(new IPEndPoint(IPAddress.Loopback, port));

    /// <summary>Whether somebody accepts TCP connections there.</summary>
    public bool Accepts(IPEndPoint to)
    {
        try
        {
            Connect(to).Dispose();
            return true;
        }
        catch (SocketException e) when (e.SocketErrorCode == SocketError.ConnectionRefused)
        {
            return false;
        }
    }

    public bool Accepts(int port) => Accepts(new IPEndPoint(IPAddress.Loopback, port));

    /// <summary>Lays a cable between two namespaces, with addresses in CIDR notation at each end; the name of our end's interface.</summary>
    public string Link(NetworkNamespace other, string[] ours, string[] theirs)
    {
        int number = Interlocked.Increment(ref _created);
        string here = $"veth{number}a", there = $"veth{number}b";
        new Command("ip", "link", "add", here, "netns", Name!, "type", "veth", "peer", there, "netns", other.Name!).RunOrFail();
        foreach ((NetworkNamespace end, string device, string[] addresses) in new[] { (this, here, ours), (other, there, theirs) })
        {
            foreach (string address in addresses)
            {
                // Without "nodad" an IPv6 address is not to be used for a second or two.
                string[] usableAtOnce = address.Contains(':') ? ["nodad"] : [];
                new Command("ip", ["-n", end.Name!, "address", "add", address, "dev", device, .. usableAtOnce]).RunOrFail();
            }

            new Command("ip", "-n", end.Name!, "link", "set", device, "up").RunOrFail();
        }

        return here;
    }

    public void Dispose()
    {
        if (Name != null)
            NamedNamespace.Delete(Path);
        _holder?.Dispose();
    }
}
