using Pesto.Forwarder.Accepting;
using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Loop;
using Pesto.Forwarder.Namespace;
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
    readonly Transaction _transaction;
    readonly SocketSettings _settings;
    readonly List<int> _events = [];
    long _lookAt = long.MaxValue;
    bool _isAsked;

    // The walk over the sockets: which is next, how many were dead, and how many were replaced.
    int _atSocket;
    int _dead;
    int _replaced;
    int _saidDead;

    public InterfaceWatch(EventLoop loop, Tables tables, Listeners listeners, Acceptor acceptor, Transaction transaction, SocketSettings settings)
    {
        _loop = loop;
        _tables = tables;
        _listeners = listeners;
        _acceptor = acceptor;
        _transaction = transaction;
        _settings = settings;
        int kind = loop.AddHandler(this);
        foreach (Tables.PifEntry pif in tables.Pifs)
        {
            Result opened = pif.Listens.OpenInterfaceEvents();
            if (opened.Ok)
            {
                loop.Epoll.Add(opened.Value, Events.In, new EventKey(kind, _events.Count, 0).Word).OrThrow("watching interfaces");
                _events.Add(opened.Value);
            }
            else
            {
                Log.Warn($"interfaces that are made anew are not noticed: {opened.Error.Text()}");
            }
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

    // A transaction that changes what is wanted finds out by itself which sockets are dead.
    public long Deadline => _transaction.IsSettled ? _lookAt : long.MaxValue;

    public void OnTime(long now)
    {
        if (_atSocket == 0)
        {
            _isAsked = false;
            _dead = _replaced = 0;
        }

        int end = Math.Min(_atSocket + Stride, _listeners.High);
        for (int tried = 0; _atSocket < end && tried < NetworkNamespace.MostListeners; _atSocket++)
        {
            if (!_listeners.Exists(_atSocket) || _listeners[_atSocket]->Quiesced || _listeners.HasInterface(_atSocket))
                continue;
            tried++;
            _dead++;
            _replaced += Replace(_atSocket) ? 1 : 0;
        }

        _lookAt = now;
        if (_atSocket < _listeners.High)
            return;
        _atSocket = 0;
        _lookAt = _isAsked ? now + Delay : long.MaxValue;
        Say();
    }

    /// <summary>Opens another socket in place of one that is dead; false if that is not possible, or not yet.</summary>
    bool Replace(int index)
    {
        Listeners.Listener* listener = _listeners[index];
        ListenRequest request = new() { Local = listener->Local, Settings = _settings };
        _tables.Pifs[listener->Pif].Listens.Listen(new Span<ListenRequest>(ref request));
        if (!request.Outcome.Ok)
            return false;
        // What is queued on the old one has come by an interface that is gone.
        _acceptor.Disarm(index);
        _listeners.Replace(index, in request);
        if (_acceptor.RuleInForce(index) != null)
            _acceptor.Arm(index);
        return true;
    }

    void Say()
    {
        if (_replaced > 0)
            Log.Info($"interfaces were made anew: {_replaced} ports are listened on again");
        int left = _dead - _replaced;
        if (left > 0 && left != _saidDead)
            Log.Warn($"interfaces are gone: nothing comes to {left} ports until they are back");
        _saidDead = left;
    }
}
