using System.Net;
using System.Net.Sockets;
using Pesto.Linux;
using Pesto.Tests.Harness;

namespace Pesto.Tests;

/// <summary>Runs the tests; and what a test has another process do, since each may have so many descriptors and no more.</summary>
static class Program
{
    /// <summary>How many connections it has an answer on before it says so.</summary>
    const int Step = 500;

    const int PoolThreads = 64;

    /// <summary>
    /// Given "connections PORT COUNT": opens so many connections to a port of the loopback and has an answer on each; does
    /// the latter again on all of them whenever it reads a line, until there is none. Writes a dot for every few hundred answers.
    /// Given anything else: xunit's own runner.
    /// </summary>
    static async Task<int> Main(string[] arguments)
    {
        if (arguments is not ["connections", string port, string count])
        {
            // Tests keep threads of the pool waiting, and what they wait for are continuations that need others. Beyond one thread for each
            // processor, the pool adds one every half second.
            _ = ThreadPool.SetMinThreads(PoolThreads, PoolThreads);
            return await Xunit.Runner.InProc.SystemConsole.ConsoleRunner.Run(arguments);
        }

        _ = Processes.RaiseDescriptorLimit();
        List<Socket> sockets = [];
        for (int i = 0; i < int.Parse(count); i++)
        {
            Socket socket = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true, ReceiveTimeout = 20_000 };
            socket.Connect(new IPEndPoint(IPAddress.Loopback, int.Parse(port)));
            sockets.Add(socket);
            Exchange(sockets, i);
        }

        while (Console.ReadLine() != null)
        {
            for (int i = 0; i < sockets.Count; i++)
                Exchange(sockets, i);
        }

        return 0;
    }

    static void Exchange(List<Socket> sockets, int index)
    {
        sockets[index].Exchange("ping");
        if (index % Step == Step - 1)
            Console.Write('.');
    }

    /// <summary>Has another process open connections from a namespace; comes back when each had an answer.</summary>
    public static BackgroundProcess Connections(NetworkNamespace from, int port, int count)
    {
        BackgroundProcess process = new Command(Environment.ProcessPath!, "connections", $"{port}", $"{count}").In(from).Start();
        WaitForAnswers(process, count);
        return process;
    }

    /// <summary>Has it ask on each connection once more.</summary>
    public static void AskAgain(BackgroundProcess process, int count)
    {
        int before = process.Output.Length * Step;
        process.Write("\n");
        WaitForAnswers(process, before + count);
    }

    static void WaitForAnswers(BackgroundProcess process, int count)
    {
        for (int answers = Step; answers <= count; answers += Step)
            process.WaitUntil(() => process.Output.Length * Step >= answers, $"{answers} answers");
    }
}
