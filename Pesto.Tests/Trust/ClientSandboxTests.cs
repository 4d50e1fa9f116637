using System.Net.Sockets;
using System.Runtime.InteropServices;
using Pesto.Protocol;
using Pesto.Tests.Faults;
using Pesto.Tests.Harness;
using Errno = Pesto.Linux.Errno;

namespace Pesto.Tests.Trust;

/// <summary>What a client that waits for a server's words can still call.</summary>
public sealed class ClientSandboxTests : IDisposable
{
    const int SocketCall = 41, Fcntl = 72;

    static readonly byte[] Greeting = MakeGreeting();

    readonly TempFolder folder = new();
    readonly Preload preload = new();
    readonly Socket listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    readonly BackgroundProcess client;
    readonly Socket server;
    int said;

    public ClientSandboxTests()
    {
        Assert.SkipUnless(RuntimeInformation.ProcessArchitecture == Architecture.X64, "numbers of x86-64");
        this.listener.Bind(new UnixDomainSocketEndPoint(this.folder["control"]));
        this.listener.Listen(1);
        string[] words = [.. this.preload.Before, Programs.Pesto, this.folder["control"]];
        this.client = new Command(words[0], words[1..]).Start();
        this.server = this.listener.Accept();
        this.client.WaitUntil(() => File.ReadAllText($"/proc/{this.client.Id}/status").Contains("Seccomp:\t2"), "the sandbox is entered");
    }

    public void Dispose()
    {
        this.client.Dispose();
        this.server.Dispose();
        this.listener.Dispose();
        this.preload.Dispose();
        this.folder.Dispose();
    }

    static byte[] MakeGreeting()
    {
        byte[] greeting = new byte[Wire.HelloSize];
        Wire.WriteHello(greeting);
        return greeting;
    }

    /// <summary>A byte of the greeting, after which it waits for more.</summary>
    void Say() => this.server.Send([Greeting[this.said++]]);

    long? Call(int number, params long[] arguments) => this.preload.Call(this.client, this.Say, number, arguments);

    [Theory]
    [InlineData("MPTCP", 2, 1, 262)]
    [InlineData("UDP-Lite", 2, 2, 136)]
    [InlineData("raw", 2, 3, 1)]
    [InlineData("netlink", 16, 3, 4)]
    public void A_socket_that_it_needs_not_is_the_end(string what, int family, int type, int protocol)
    {
        Assert.True(this.Call(SocketCall, family, type, protocol) is null, what);
        Assert.Equal(159, this.client.WaitForEnd(TimeSpan.FromSeconds(5)).ExitStatus);
    }

    [Fact]
    public void Of_fcntl_it_has_nothing()
    {
        const int SetOwner = 8, SetSignal = 10, SetFlags = 4, Async = 0x2000;
        Assert.Equal(-(long)Errno.ENOSYS, this.Call(Fcntl, 2, SetOwner, 1));
        Assert.Equal(-(long)Errno.ENOSYS, this.Call(Fcntl, 2, SetSignal, 9));
        Assert.Equal(-(long)Errno.ENOSYS, this.Call(Fcntl, 2, SetFlags, Async));
        Assert.False(this.client.HasEnded);
    }
}
