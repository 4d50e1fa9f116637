namespace Pesto.Linux;

/// <summary>The formats of the kernel's socket diagnosis, sock_diag(7), for TCP and UDP (linux/inet_diag.h, linux/sock_diag.h).</summary>
static class InetDiagnosis
{
    public const int NetlinkProtocol = 4;

    /// <summary>SOCK_DIAG_BY_FAMILY: sockets of one protocol and family.</summary>
    public const ushort ByFamily = 20;

    /// <summary>TCPDIAG_GETSOCK: TCP sockets of both families; the older request, which every kernel still has.</summary>
    public const ushort Tcp = 18;

    // States of sockets (linux/tcp_states.h). An unconnected UDP socket is "closed".
    public const int SynReceived = 3, Closed = 7, Listen = 10, LastState = 12;

    /// <summary>struct inet_diag_req_v2: family, protocol, two bytes, then a mask of states; an identity of 48 bytes that says nothing here.</summary>
    public const int ByFamilySize = 56;

    /// <summary>struct inet_diag_req: four bytes, an identity of 48 bytes, a mask of states, an interface.</summary>
    public const int TcpSize = 60, TcpStatesAt = 52;

    /// <summary>struct inet_diag_msg: family, state; own port at 4, own address at 8, interface at 40; attributes from 72.</summary>
    public const int StateAt = 1, PortAt = 4, AddressAt = 8, InterfaceAt = 40, MessageSize = 72;

    /// <summary>The attribute INET_DIAG_SKV6ONLY, one byte.</summary>
    public const ushort V6OnlyAttribute = 11;
}
