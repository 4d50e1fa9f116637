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

    readonly TempFolder _folder = new();
    readonly Preload _preload = new();
    readonly Socket _listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    readonly BackgroundProcess _client;
    readonly Socket _server;
    int _said;

    public ClientSandboxTests()
    {
        Assert.SkipUnless(RuntimeInformation.ProcessArchitecture == Architecture.X64, "numbers of x86-64");
        _listener.Bind(new UnixDomainSocketEndPoint(_folder["control"]));
        _listener.Listen(1);
        string[] words = [.. _preload.Before, Programs.Pesto, _folder["control"]];
        _client = new Command(words[0], words[1..]).Start();
        _server = _listener.Accept();
        _client.WaitUntil(() => File.ReadAllText($"/proc/{_client.Id}/status").Contains("Seccomp:\t2"), "the sandbox is entered");
    }

    public void Dispose()
    {
        _client.Dispose();
        _server.Dispose();
        _listener.Dispose();
        _preload.Dispose();
        _folder.Dispose();
    }

    static byte[] MakeGreeting()
    {
        byte[] greeting = new byte[Wire.HelloSize];
        Wire.WriteHello(greeting);
        return greeting;
    }

    /// <summary>A byte of the greeting, after which it waits for more.</summary>
    void Say() => _server.Send([Greeting[_said++]]);

    long? Call(int number, params long[] arguments) => _preload.Call(_client, Say, number, arguments);

    [Theory]
    [InlineData("MPTCP", 2, 1, 262)]
    [InlineData("UDP-Lite", 2, 2, 136)]
    [InlineData("raw", 2, 3, 1)]
    [InlineData("netlink", 16, 3, 4)]
    public void A_socket_that_it_needs_not_is_the_end(string what, int family, int type, int protocol)
    {
        Assert.True(Call(SocketCall, family, type, protocol) is null, what);
        Assert.Equal(159, _client.WaitForEnd(TimeSpan.FromSeconds(5)).ExitStatus);
    }

    [Fact]
    public void Of_fcntl_it_has_nothing()
    {
        const int SetOwner = 8, SetSignal = 10, SetFlags = 4, Async = 0x2000;
        Assert.Equal(-(long)Errno.ENOSYS, Call(Fcntl, 2, SetOwner, 1));
        Assert.Equal(-(long)Errno.ENOSYS, Call(Fcntl, 2, SetSignal, 9));
        Assert.Equal(-(long)Errno.ENOSYS, Call(Fcntl, 2, SetFlags, Async));
        Assert.False(_client.HasEnded);
    }
}
