namespace Pesto.Forwarder.Tcp;

/// <summary>How long a TCP flow may take, in milliseconds.</summary>
/// <param name="Connect">Until a target answers; 0: as long as the kernel tries.</param>
/// <param name="Idle">Without moving anything, or it is reset; 0: for ever.</param>
/// <param name="HalfClosed">The same once one side has ended its stream; 0: for ever.</param>
public readonly record struct TcpTimes(long Connect, long Idle, long HalfClosed);
