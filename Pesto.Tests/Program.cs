using System.Net;
using System.Net.Sockets;
using Pesto.Linux;
using Pesto.Tests.Harness;

namespace Pesto.Tests;

/// <summary>What a test has another process do, since each may have so many descriptors and no more.</summary>
static class Program
{
    /// <summary>
    /// Given "connections PORT COUNT": opens so many connections to a port of the loopback, has an answer on each, says
    /// "ready", and does it again on all of them whenever it reads a line, until there is none.
    /// </summary>
    static int Main(string[] arguments)
    {
        if (arguments is not ["connections", string port, string count])
            return 2;
        _ = Processes.RaiseDescriptorLimit();
        List<Socket> sockets = [];
        for (int i = 0; i < int.Parse(count); i++)
        {
            Socket socket = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true, ReceiveTimeout = 20_000 };
            socket.Connect(new IPEndPoint(IPAddress.Loopback, int.Parse(port)));
            sockets.Add(socket);
        }

        do
        {
            foreach (Socket socket in sockets)
                socket.Exchange("ping");
            Console.WriteLine("ready");
        }
        while (Console.ReadLine() != null);
        return 0;
    }

    /// <summary>The command that does so from a namespace.</summary>
    public static Command Connections(NetworkNamespace from, int port, int count) =>
        new Command("dotnet", Path.Combine(AppContext.BaseDirectory, "Pesto.Tests.dll"), "connections", $"{port}", $"{count}").In(from);
}
