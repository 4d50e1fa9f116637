using Pesto.Linux;

namespace Pesto.Forwarder.Loop;

/// <summary>What a descriptor is for.</summary>
public enum DescriptorUse : byte
{
    /// <summary>A client of the control socket. Nothing else can take its share.</summary>
    Control,

    /// <summary>A listening socket that a rule names by its port.</summary>
    ListeningExplicit,

    /// <summary>A listening socket of an "auto" rule.</summary>
    ListeningAuto,

    /// <summary>A socket of a TCP flow.</summary>
    TcpFlow,

    /// <summary>The same, of a port with few flows: when other ports have taken all that flows may have, it still gets some.</summary>
    TcpFlowOfQuietPort,

    /// <summary>The same, accepted from a listening socket that is about to be closed.</summary>
    TcpFlowOfClosingPort,

    /// <summary>An end of a pipe. Flows can do without.</summary>
    Pipe,

    /// <summary>The socket of a UDP flow.</summary>
    UdpFlow,
}

/// <summary>
/// Decides every descriptor that is opened while the forwarder serves, by counting them. A part of the process's limit is set apart:
/// for what is open all the time, for the control socket's clients, for sockets kept at hand, and for those that are open only
/// within one step of the loop. The rest is for listening sockets and flows. Each use has a share of it that the others leave to it,
/// and what is left over goes to the one that comes first.
/// </summary>
public sealed class DescriptorBudget
{
    const int Uses = (int)DescriptorUse.UdpFlow + 1;

    /// <summary>Standard input, output and errors, log, epoll, signals, netlink, event counters, and what the runtime opens.</summary>
    const int AlwaysOpen = 32;

    /// <summary>Sockets that are being opened for listening, or that are opened to find something out.</summary>
    const int Momentary = 24;

    /// <summary>Kinds of sockets that are kept at hand for flows: two protocols, two families.</summary>
    const int Pools = 4;

    readonly int[] _taken = new int[Uses];
    readonly int[] _shares = new int[Uses];
    readonly int[] _most = new int[Uses];
    readonly int _mostListening;

    /// <summary>So many more listening sockets can be opened, up to their most, while flows have more than their shares.</summary>
    readonly int _listeningHeadroom;
    int _free;

    /// <param name="descriptors">The process's limit (RLIMIT_NOFILE), 64 or more.</param>
    /// <param name="udpFlows">The most UDP flows, or 0 for half of what there is.</param>
    public DescriptorBudget(int descriptors, int udpFlows = 0)
    {
        Descriptors = descriptors;
        PoolSize = Math.Clamp(descriptors / 64, 2, 32);
        int control = Math.Clamp(descriptors / 10, 8, 66);
        int traffic = descriptors - Math.Min(AlwaysOpen + Momentary + control + (Pools * PoolSize), descriptors / 2);
        _free = traffic;
        // Even numbers: a flow takes two. Small where there are few, so that half of 256 can be listening sockets, if rules name so many ports.
        Set(DescriptorUse.TcpFlow, share: Math.Min(traffic / 10, 2048) & ~1, most: traffic);
        Set(DescriptorUse.TcpFlowOfQuietPort, share: Math.Clamp(traffic / 20, 4, 64) & ~1, most: traffic);
        Set(DescriptorUse.TcpFlowOfClosingPort, share: Math.Clamp(traffic / 32, 2, 32) & ~1, most: traffic);
        Set(DescriptorUse.Pipe, share: 0, most: traffic);
        int mostUdp = udpFlows == 0 ? traffic / 2 : Math.Min(udpFlows, traffic);
        Set(DescriptorUse.UdpFlow, share: Math.Min(Math.Clamp(traffic / 20, 4, 256), mostUdp), most: mostUdp);
        _mostListening = Math.Max(1, traffic - _shares.Sum());
        _listeningHeadroom = Math.Clamp(traffic / 16, 2, 64);
        Set(DescriptorUse.ListeningExplicit, share: 0, most: _mostListening);
        Set(DescriptorUse.ListeningAuto, share: 0, most: _mostListening / 2);
        Set(DescriptorUse.Control, share: 0, most: control);

        void Set(DescriptorUse use, int share, int most)
        {
            _shares[(int)use] = share;
            _most[(int)use] = most;
        }
    }

    /// <summary>The process's limit.</summary>
    public int Descriptors { get; }

    /// <summary>How many sockets of each protocol and family may be kept at hand for flows to come.</summary>
    public int PoolSize { get; }

    /// <summary>Listening sockets, of both kinds.</summary>
    public int Listening => Taken(DescriptorUse.ListeningExplicit) + Taken(DescriptorUse.ListeningAuto);

    /// <summary>How often something was given back: what waits for room is tried again when this has changed.</summary>
    public long Gifts { get; private set; }

    public int Taken(DescriptorUse use) => _taken[(int)use];

    /// <summary>The most that this use gets while the others have nothing.</summary>
    public int Most(DescriptorUse use) => _most[(int)use];

    /// <summary>Whether this use may have so many more now.</summary>
    public bool CanTake(DescriptorUse use, int count)
    {
        int taken = _taken[(int)use] + count;
        if (taken > _most[(int)use])
            return false;
        if (use == DescriptorUse.Control)
            return true;
        if (use is DescriptorUse.ListeningExplicit or DescriptorUse.ListeningAuto && Listening + count > _mostListening)
            return false;
        // A use's own share is there for it, whatever the others have.
        return taken <= _shares[(int)use] || _free - LeftToOthers(use) >= count;
    }

    /// <summary>Takes so many, or none of them where that would be more than this use may have now.</summary>
    public bool TryTake(DescriptorUse use, int count)
    {
        if (!CanTake(use, count))
            return false;
        _taken[(int)use] += count;
        if (use != DescriptorUse.Control)
            _free -= count;
        Check.That(_free >= 0, "no more descriptors are taken than there are");
        return true;
    }

    public void Give(DescriptorUse use, int count)
    {
        Check.That(_taken[(int)use] >= count, "what is given back was taken");
        _taken[(int)use] -= count;
        if (use != DescriptorUse.Control)
            _free += count;
        Gifts++;
    }

    int LeftToOthers(DescriptorUse use)
    {
        int left = 0;
        for (int other = 0; other < Uses; other++)
        {
            if (other != (int)use)
                left += Math.Max(0, _shares[other] - _taken[other]);
        }

        return use == DescriptorUse.ListeningExplicit ? left : left + Math.Min(_listeningHeadroom, _mostListening - Listening);
    }
}
