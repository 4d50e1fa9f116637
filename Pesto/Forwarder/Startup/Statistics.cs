using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Loop;
using Pesto.Forwarder.Reporting;
using Pesto.Forwarder.Tcp;

namespace Pesto.Forwarder.Startup;

/// <summary>Prints the counters: at SIGUSR1, and every --stats seconds.</summary>
public sealed class Statistics : ITimed
{
    readonly EventLoop _loop;
    readonly Counters _counters;
    readonly TcpFlows _tcp;
    readonly Listeners _listeners;
    readonly long _interval;
    long _next;

    public Statistics(EventLoop loop, Counters counters, TcpFlows tcp, Listeners listeners, long interval)
    {
        _loop = loop;
        _counters = counters;
        _tcp = tcp;
        _listeners = listeners;
        _interval = interval;
        _next = interval == 0 ? long.MaxValue : loop.Now + interval;
    }

    public long Deadline => _next;

    public void OnTime(long now)
    {
        _next = now + _interval;
        Print();
    }

    /// <summary>One line of name=value pairs, separated by spaces; names stay the same from version to version.</summary>
    public void Print()
    {
        Counters c = _counters;
        Log.Error($"stats: tcp_open={c.TcpOpen} tcp_total={c.TcpTotal} bytes_in={c.BytesIn} bytes_out={c.BytesOut} refused={c.Refused} shed={c.Shed} pipes={_tcp.PipeCount} commits={c.Commits} rollbacks={c.Rollbacks} sockets={_listeners.Count} sockets_opened={c.SocketsOpened} sockets_stolen={c.SocketsStolen} sockets_parked={c.SocketsParked} sockets_closed={c.SocketsClosed} sockets_failed={c.SocketsFailed} scans={c.Scans} slices={c.Slices} longest_slice_us={c.LongestSlice / 1000} longest_iteration_us={_loop.LongestIteration / 1000} udp_open={c.UdpOpen} udp_total={c.UdpTotal} datagrams_in={c.DatagramsIn} datagrams_out={c.DatagramsOut} udp_dropped={c.DatagramsDropped} udp_refused={c.UdpRefused} udp_shed={c.UdpShed} address_refused={c.AddressRefused} gc_bytes={GC.GetTotalAllocatedBytes(precise: true)}");
    }
}
