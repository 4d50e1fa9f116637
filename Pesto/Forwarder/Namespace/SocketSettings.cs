namespace Pesto.Forwarder.Namespace;

/// <summary>What the command line asks of every socket that is opened for traffic.</summary>
/// <param name="FreeBind">Listen on addresses that the host does not have (yet), too.</param>
/// <param name="Keepalive">Seconds of silence after which a TCP peer is asked whether it is still there, 1 to 32767; 0: never.</param>
public readonly record struct SocketSettings(bool FreeBind, int Keepalive);
