namespace Pesto.Linux;

/// <summary>The kernel's messages about interfaces and addresses that come, go or change, rtnetlink(7).</summary>
public static unsafe class InterfaceEvents
{
    const int Netlink = 16, Raw = 3, NonBlocking = 0x800, CloseOnExec = 0x80000, Route = 0;

    /// <summary>RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR. Joining these groups takes no capability.</summary>
    const uint Groups = 0x1 | 0x10 | 0x100;

    /// <summary>Opens a socket that gets them, of the namespace of the calling thread.</summary>
    public static Result Open()
    {
        Result socket = Result.Of(Libc.socket(Netlink, Raw | NonBlocking | CloseOnExec, Route));
        if (!socket.Ok)
            return socket;
        // struct sockaddr_nl: family and padding of 16 bits each, port (0: the kernel's choice), groups.
        uint* address = stackalloc uint[] { 0, 0, Groups };
        *(ushort*)address = Netlink;
        Result bound = Result.Of(Libc.bind(socket.Value, address, 3 * sizeof(uint)));
        if (bound.Ok)
            return socket;
        Descriptors.Close(socket.Value);
        return bound;
    }

    /// <summary>Takes what is there, up to so many messages. What was lost (ENOBUFS) counts as read: there was something.</summary>
    public static void Discard(int fd, int most)
    {
        byte* buffer = stackalloc byte[4096];
        for (int i = 0; i < most; i++)
        {
            Result received = Sockets.Receive(fd, buffer, 4096);
            if (received.Is(Errno.EAGAIN))
                return;
        }
    }
}
