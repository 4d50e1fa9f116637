using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Loop;
using Pesto.Forwarder.Namespace;
using Pesto.Forwarder.Reporting;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Commit;

/// <summary>
/// Opens listening sockets, a batch at a time, all of one pif: add what is wanted, begin, end, look at what became of each, clear.
/// Where the sockets belong to another thread's namespace, traffic goes on between begin and end.
/// </summary>
public sealed unsafe class ListenerOpener(Tables tables, Listeners listeners, PortTakeover takeover, Counters counters, SocketSettings settings)
{
    readonly ListenRequest[] _requests = new ListenRequest[NetworkNamespace.MostListeners];
    readonly Wanted[] _wanted = new Wanted[NetworkNamespace.MostListeners];
    int _pif;
    int _count;

    /// <summary>A listening socket that is to be opened, and what became of it.</summary>
    public struct Wanted
    {
        /// <summary>The position of the rule that wants it.</summary>
        public int Rule;

        public ListenAddress Local;

        public DescriptorUse Use;

        /// <summary>Its index among the listening sockets, wanted by no rule yet; or -1.</summary>
        public int Index;

        /// <summary>Why there is none.</summary>
        public Errno Error;
    }

    /// <summary>The pif of the batch.</summary>
    public int Pif => _pif;

    public bool IsFull => _count == NetworkNamespace.MostListeners;

    public bool IsEmpty => _count == 0;

    /// <summary>Sockets are being opened.</summary>
    public bool IsUnderWay { get; private set; }

    /// <summary>After the end: what became of each.</summary>
    public ReadOnlySpan<Wanted> Results => _wanted.AsSpan(0, _count);

    /// <summary>Adds a socket to the batch, unless it is there for the same rule already.</summary>
    /// <param name="use">What its descriptor is counted as.</param>
    public void Add(int pif, int rule, in ListenAddress local, DescriptorUse use)
    {
        Check.That(!IsFull && !IsUnderWay && (_count == 0 || pif == _pif), "a batch is of one pif");
        foreach (ref readonly Wanted other in Results)
        {
            if (other.Rule == rule && other.Local == local)
                return;
        }

        _pif = pif;
        _wanted[_count] = new() { Rule = rule, Local = local, Use = use };
        _requests[_count++] = new() { Local = local, Settings = settings };
    }

    public void Begin()
    {
        IsUnderWay = true;
        tables.Pifs[_pif].Listens.BeginListen(_requests.AsSpan(0, _count));
    }

    /// <summary>Takes over the sockets that were opened; false if they are not there yet.</summary>
    public bool End(bool wait)
    {
        if (!tables.Pifs[_pif].Listens.EndListen(_requests.AsSpan(0, _count), wait))
            return false;
        IsUnderWay = false;
        for (int i = 0; i < _count; i++)
        {
            if (_requests[i].Outcome.Is(Errno.EADDRINUSE))
                takeover.TakeOver(_pif, ref _requests[i]);
            (_wanted[i].Index, _wanted[i].Error) = Add(in _requests[i], _wanted[i].Use);
        }

        return true;
    }

    (int Index, Errno Error) Add(in ListenRequest opened, DescriptorUse use)
    {
        if (!opened.Outcome.Ok)
            return (-1, opened.Outcome.Error);

        int index = listeners.Add(_pif, in opened, use);
        if (index < 0)
        {
            Descriptors.Close(opened.Outcome.Value);
            return (-1, Errno.EMFILE);
        }

        counters.SocketsOpened++;
        return (index, Errno.None);
    }

    public void Clear() => _count = 0;
}
