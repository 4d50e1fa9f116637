using Pesto.Forwarder.Listening;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Tcp;

/// <summary>Tells a target who the client is and what address it spoke to, before the first byte of its stream: the PROXY protocol.</summary>
static unsafe class ProxyIntroduction
{
    /// <summary>
    /// Sends what is left of the header and gives how much is left then. A new connection takes all of it unless the kernel lacks memory. EAGAIN: an
    /// event will tell when it takes more. ENOTCONN: the client has been reset.
    /// </summary>
    public static Result Send(TcpFlow* flow)
    {
        int client = TcpFlow.End(flow, TcpFlow.Client)->Fd;
        Result known = Sockets.PeerAddress(client, out SocketAddress peer);
        if (!known.Ok)
            return known;
        known = Sockets.LocalAddress(client, out SocketAddress destination);
        if (!known.Ok)
            return known;
        ProxyHeader header = flow->ProxyVersion == 1 ? ProxyHeader.Version1(in peer, in destination) : ProxyHeader.Version2(IpProtocol.Tcp, in peer, in destination);
        TcpEnd* target = TcpFlow.End(flow, TcpFlow.Target);
        Result sent;
        fixed (byte* bytes = header.Bytes)
        {
            do
                sent = Sockets.Send(target->Fd, bytes + flow->HeaderSent, header.Length - flow->HeaderSent);
            while (sent.Is(Errno.EINTR));
        }

        if (!sent.Ok)
            return sent;
        target->HasSent = true;
        flow->HeaderSent += (byte)sent.Value;
        return Result.From(header.Length - flow->HeaderSent);
    }
}
