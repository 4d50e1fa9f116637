using System.Net;
using System.Net.Sockets;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Udp;

/// <summary>Datagrams, each from another port, to one port or many in turn, until it is disposed of.</summary>
sealed class Flood : IDisposable
{
    const int FirstPort = 10_000, Ports = 10_000;

    readonly Thread _thread;
    volatile bool _stopping;
    volatile int _sent;

    public Flood(NetworkNamespace from, IPEndPoint to, int targets = 1)
    {
        _thread = new(() => from.Run(() =>
        {
            IPAddress any = to.AddressFamily == AddressFamily.InterNetwork ? IPAddress.Any : IPAddress.IPv6Any;
            for (int i = 0; !_stopping; i++)
            {
                using Socket socket = new(to.AddressFamily, SocketType.Dgram, ProtocolType.Unspecified);
                socket.Bind(new IPEndPoint(any, FirstPort + (i % Ports)));
                socket.SendTo([1], new IPEndPoint(to.Address, to.Port + (i % targets)));
                _sent = i + 1;
            }

            return true;
        }));
        _thread.Start();
    }

    public void WaitForMore(int count)
    {
        int enough = _sent + count;
        Eventually.True(() => _sent >= enough, "the flood goes on");
    }

    public void Dispose()
    {
        _stopping = true;
        _thread.Join();
    }
}
