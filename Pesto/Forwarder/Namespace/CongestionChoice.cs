using Pesto.Linux;

namespace Pesto.Forwarder.Namespace;

/// <summary>
/// Which congestion control TCP sockets have. Where the system's own choice paces (see <see cref="CongestionControl"/>), connections within
/// this host have another, and those from and to elsewhere keep it.
/// </summary>
public sealed class CongestionChoice
{
    bool? _paces;

    /// <summary>Has a new listening socket give accepted connections what suits those from this host.</summary>
    /// <returns>What those from elsewhere are to have instead, or none.</returns>
    public static CongestionControl ForListening(int fd)
    {
        CongestionControl usual = CongestionControl.Of(fd);
        return usual.Paces && CongestionControl.Reno.ApplyTo(fd).Ok ? usual : default;
    }

    /// <summary>Gives an accepted connection what suits its peer.</summary>
    /// <param name="fromElsewhere">What <see cref="ForListening"/> said of its listening socket.</param>
    public static void ForAccepted(int fd, in CongestionControl fromElsewhere, Address peer)
    {
        if (!fromElsewhere.IsNone && !peer.IsLoopback)
            _ = fromElsewhere.ApplyTo(fd).Ok;
    }

    /// <summary>Gives a socket that is about to be connected what suits its target. The namespace's usual choice is looked up once.</summary>
    public void ForTarget(int fd, Address target)
    {
        if ((_paces ??= CongestionControl.Of(fd).Paces) && target.IsLoopback)
            _ = CongestionControl.Reno.ApplyTo(fd).Ok;
    }
}
