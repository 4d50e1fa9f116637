using Pesto.Forwarder.Accepting;
using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Loop;
using Pesto.Forwarder.Reporting;
using Pesto.Linux;

namespace Pesto.Forwarder.Commit;

/// <summary>
/// Listens again where a socket is bound to an interface that was deleted and made anew, such as a VPN's: the kernel knows interfaces by
/// their indices, so nothing comes to the old socket any more. Also when the interface has its addresses only later.
/// </summary>
public sealed unsafe class InterfaceWatch : IEventHandler, ITimed
{
    /// <summary>Changes come in bursts: they are looked at together, so many milliseconds after the first.</summary>
    const long Delay = 100;

    /// <summary>Messages that are read before traffic has its turn, and listening sockets that are looked at.</summary>
    const int MessageStride = 64;
    const int Stride = 64;

    readonly EventLoop _loop;
    readonly Tables _tables;
    readonly Listeners _listeners;
    readonly Acceptor _acceptor;
    readonly ListenerOpener _opener;
    readonly ListenerCloser _closer;
    readonly Transaction _transaction;
    readonly List<int> _events = [];
    long _lookAt = long.MaxValue;
    bool _isAsked;

    // The walk over the sockets: which is next, how many were dead, and how many were opened anew.
    int _atSocket;
    int _dead;
    int _reopened;
    int _saidDead;

    // A socket that was replaced and is still to be closed, or -1.
    int _closing = -1;
    uint _closingGeneration;

    public InterfaceWatch(
        EventLoop loop,
        Tables tables,
        Listeners listeners,
        Acceptor acceptor,
        ListenerOpener opener,
        ListenerCloser closer,
        Transaction transaction)
    {
        _loop = loop;
        _tables = tables;
        _listeners = listeners;
        _acceptor = acceptor;
        _opener = opener;
        _closer = closer;
        _transaction = transaction;
        int kind = loop.AddHandler(this);
        foreach (Tables.PifEntry pif in tables.Pifs)
        {
            Result opened = pif.Listens.OpenInterfaceEvents();
            if (!opened.Ok || !loop.Epoll.Add(opened.Value, Events.In, new EventKey(kind, _events.Count, 0).Word).Ok)
            {
                Log.Warn($"interfaces that are made anew are not noticed: {opened.Error.Text()}");
                continue;
            }

            _events.Add(opened.Value);
        }
    }

    public void OnEvents(EventKey key, Events events)
    {
        InterfaceEvents.Discard(_events[key.Index], MessageStride);
        // A walk that is under way may be past what has changed.
        _isAsked = true;
        if (_lookAt == long.MaxValue)
            _lookAt = _loop.Now + Delay;
    }

    // While a transaction changes what is wanted, it finds out by itself which sockets are dead.
    public long Deadline => _transaction.IsSettled ? _lookAt : long.MaxValue;

    public void OnTime(long now)
    {
        _lookAt = now;
        if (!CloseReplaced(now))
            return;
        if (_atSocket == 0)
        {
            _isAsked = false;
            _dead = _reopened = 0;
        }

        int end = Math.Min(_atSocket + Stride, _listeners.High);
        while (_atSocket < end)
        {
            int index = _atSocket++;
            if (!_listeners.Exists(index) || _listeners[index]->Quiesced || _listeners.HasInterface(index))
                continue;
            _dead++;
            if (!Reopen(index))
                continue;
            _reopened++;
            (_closing, _closingGeneration) = (index, _listeners.Generation(index));
            return;
        }

        if (_atSocket < _listeners.High)
            return;
        _atSocket = 0;
        _lookAt = _isAsked ? now + Delay : long.MaxValue;
        Say();
    }

    /// <summary>Serves what is queued on a dead socket and closes it; its UDP flows go on with the new one. False if that takes longer.</summary>
    bool CloseReplaced(long now)
    {
        const long RetryMilliseconds = 10;
        if (_closing < 0)
            return true;
        // A transaction may have closed it meanwhile.
        if (_listeners.Generation(_closing) == _closingGeneration)
        {
            Acceptor.Accepted left = _closer.Close(_closing);
            if (left == Acceptor.Accepted.Full)
                _lookAt = now + RetryMilliseconds;
            if (left != Acceptor.Accepted.All)
                return false;
        }

        _closing = -1;
        return true;
    }

    /// <summary>Opens another socket in place of one that is dead.</summary>
    bool Reopen(int dead)
    {
        Listeners.Listener* old = _listeners[dead];
        _opener.Add(old->Pif, old->Rule[_tables.Active], in old->Local);
        _opener.Begin();
        _ = _opener.End(wait: true);
        int index = _opener.Results[0].Index;
        _opener.Clear();
        if (index < 0)
            return false;
        Listeners.Listener* made = _listeners[index];
        for (int set = 0; set < 2; set++)
            made->Rule[set] = old->Rule[set];
        made->Seen = old->Seen;
        if (_acceptor.RuleInForce(index) != null)
            _acceptor.Arm(index);
        return true;
    }

    void Say()
    {
        if (_reopened > 0)
            Log.Info($"interfaces were made anew: {_reopened} ports are listened on again");
        int left = _dead - _reopened;
        if (left > 0 && left != _saidDead)
            Log.Warn($"interfaces are gone: nothing comes to {left} ports until they are back");
        _saidDead = left;
    }
}
