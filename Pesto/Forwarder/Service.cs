using Pesto.Forwarder.Accepting;
using Pesto.Forwarder.Commit;
using Pesto.Forwarder.Control;
using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Loop;
using Pesto.Forwarder.Namespace;
using Pesto.Forwarder.Reporting;
using Pesto.Forwarder.Startup;
using Pesto.Forwarder.Tcp;
using Pesto.Forwarder.Udp;
using Pesto.Linux;

namespace Pesto.Forwarder;

/// <summary>
/// A running forwarder: which parts there are, what each is given, in which order timers run, and the steps from the first table to the last
/// file removed. What a step does is in Startup.
/// </summary>
public sealed class Service
{
    const int MostDescriptors = 1 << 20;

    readonly ServeOptions _options;
    readonly Counters _counters = new();
    readonly EventLoop _loop = new();
    readonly DescriptorBudget _budget;
    readonly TargetNamespace _target;
    readonly NamespaceWatch? _namespaceWatch;
    readonly Tables _tables;
    readonly Listeners _listeners;
    readonly SelfForwarding? _selfForwarding;
    readonly TcpFlows _tcp;
    readonly UdpFlows _udp;
    readonly Acceptor _acceptor;
    readonly AutoForward? _auto;
    readonly Transaction _transaction;
    readonly InterfaceWatch _interfaces;
    readonly Statistics _statistics;
    readonly ClientAddressSetUp _clients;
    readonly OwnFiles _ownFiles = new();

    public Service(ServeOptions options)
    {
        _options = options;
        LogDestination.Open(options);
        Processes.IgnoreBrokenPipes();
        int descriptors = (int)Math.Min(Processes.RaiseDescriptorLimit(), MostDescriptors);
        _budget = new(descriptors, options.UdpMaxFlows);

        _target = new(options, _budget.PoolSize);
        _namespaceWatch = _target.Watch(_loop);
        Targets targets = new(
            options.TargetV4 ?? options.TargetV6 ?? Address.LoopbackV4,
            options.TargetV6 ?? options.TargetV4 ?? Address.LoopbackV6);
        _selfForwarding = _target.IsOneSide ? new(targets) : null;

        LimitLog limits = new(_loop, _counters, _budget);
        _clients = new(options, _target, _budget.Most(DescriptorUse.UdpFlow));
        _tables = new(OfferedPifs.Of(options, _target, _clients.For(_counters)));
        _listeners = new(_budget);
        SocketSettings settings = new(options.FreeBind, options.Keepalive);
        TcpTimes times = new(options.ConnectTimeout, options.IdleTimeout, options.HalfClosedTimeout);
        PipePool pipes = new(_budget);
        _tcp = new(_loop, _counters, limits, _budget, _listeners, pipes, times, settings.Keepalive);
        UdpFlowTable udpFlows = new(_budget.Most(DescriptorUse.UdpFlow), _listeners.Capacity, options.UdpTimeout, options.UdpStreamTimeout);
        _udp = new(_loop, _counters, limits, _budget, _tables, _listeners, targets, udpFlows);
        // Asked for descriptors in this order: idle pipes are made again in no time, UDP flows that have been idle may not be needed any more.
        Backpressure backpressure = new(_budget, pipes, _udp);
        _acceptor = new(_loop, _tables, _listeners, _tcp, _udp, backpressure, limits, _budget, targets, _counters);
        PortTakeover takeover = new(_tables, _listeners);
        ListenerOpener opener = new(_tables, _listeners, takeover, _counters, settings);
        ListenerCloser closer = new(_loop, _tables, _listeners, _acceptor, takeover, _counters);
        _auto = _target.IsOneSide ? null : new(_loop, _tables, _listeners, _acceptor, opener, closer, targets, _counters);
        _transaction = new(_loop, _tables, _listeners, _acceptor, opener, closer, _auto, _counters);
        _interfaces = new(_loop, _tables, _listeners, _acceptor, _transaction, settings);
        _statistics = new(_loop, _counters, _tcp, _listeners, options.StatsInterval);
    }

    public int Run()
    {
        try
        {
            if (!new FirstTables(_tables, _listeners, _transaction, _selfForwarding).Open(_options.Specifiers))
                return 1;
            Session? session = null;
            ControlSocket? control = null;
            if (_options.ControlPath is not null)
            {
                session = new(_loop, _tables, _transaction, _options.ConfTimeout, _listeners.Capacity, _selfForwarding);
                control = new(_loop, session, new ListeningUnixSocket(_options.ControlPath), Namespaces.EveryUserIsMapped, _budget.Most(DescriptorUse.Control));
                _ownFiles.Add(control.File.Path, control.File.Identity);
            }

            SignalWatch signals = new(_loop, _statistics);
            if (_options.PidPath is not null && PidFile.Write(_options.PidPath) is Files.FileIdentity pidFile)
                _ownFiles.Add(_options.PidPath, pidFile);
            Log.Info($"serving: {_listeners.Count} listening sockets{(control is null ? "" : ", control socket ")}{_options.ControlPath}");
            if (!_options.Foreground)
                LogDestination.EnterBackground(_options);
            if (!_options.NoSandbox)
                Sandbox.Enter(_options, _target.OtherSide, _tables, _listeners, _ownFiles, _clients.Routing);
            Reexecution.Ready();

            // Traffic first, then tables and listening sockets, then the clients that change them.
            ITimed?[] inThisOrder = [_tcp, _udp, _acceptor, _transaction, _auto, _interfaces, session?.Timer, control, _statistics];
            _loop.Run([.. inThisOrder.OfType<ITimed>()]);
            if (_namespaceWatch is { IsGone: true })
                Log.Info($"ending: {_options.NetnsPath} is gone");
            else
                Log.Info($"ending: signal {signals.Last}");
        }
        finally
        {
            _ownFiles.Remove();
            _clients.Routing?.Remove();
        }

        return 0;
    }
}
