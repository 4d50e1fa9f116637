namespace Pesto.Forwarder;

/// <summary>Prints the counters, when asked by a signal and at an interval if one is given.</summary>
public sealed class Statistics : ITimed
{
    readonly Loop loop;
    readonly Counters counters;
    readonly TcpFlows tcp;
    readonly Listeners listeners;
    readonly long interval;
    long next;

    public Statistics(Loop loop, Counters counters, TcpFlows tcp, Listeners listeners, long interval)
    {
        this.loop = loop;
        this.counters = counters;
        this.tcp = tcp;
        this.listeners = listeners;
        this.interval = interval;
        this.next = interval == 0 ? long.MaxValue : loop.Now + interval;
        loop.AddTimed(this);
    }

    public long Deadline => this.next;

    public void OnTime(long now)
    {
        this.next = now + this.interval;
        this.Print();
    }

    /// <summary>One line of name=value pairs, separated by spaces; names stay the same from version to version.</summary>
    public void Print()
    {
        Counters c = this.counters;
        Log.Error($"stats: tcp_open={c.TcpOpen} tcp_total={c.TcpTotal} bytes_in={c.BytesIn} bytes_out={c.BytesOut} refused={c.Refused} shed={c.Shed} pipes={this.tcp.PipeCount} commits={c.Commits} rollbacks={c.Rollbacks} sockets={this.listeners.Count} sockets_opened={c.SocketsOpened} sockets_stolen={c.SocketsStolen} sockets_parked={c.SocketsParked} sockets_closed={c.SocketsClosed} sockets_failed={c.SocketsFailed} scans={c.Scans} slices={c.Slices} longest_slice_us={c.LongestSlice / 1000} longest_iteration_us={this.loop.LongestIteration / 1000} udp_open={c.UdpOpen} udp_total={c.UdpTotal} datagrams_in={c.DatagramsIn} datagrams_out={c.DatagramsOut} udp_dropped={c.DatagramsDropped} udp_refused={c.UdpRefused} udp_shed={c.UdpShed} gc_bytes={GC.GetTotalAllocatedBytes(precise: true)}");
    }
}
