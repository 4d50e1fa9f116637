using Pesto.Linux;

namespace Pesto.Tests.Fuzz;

/// <summary>Whatever comes over netlink, a list of sockets comes to an end.</summary>
public sealed class NetlinkFuzz(ITestOutputHelper output)
{
    const int MostSockets = 10_000;

    /// <summary>NLMSG_DONE, with no error.</summary>
    static readonly byte[] Done = [20, 0, 0, 0, 3, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    [Fact]
    public void Any_reply_is_a_list_or_an_error()
    {
        (int theirs, int ours) = Pair.Open(Pair.Datagram | Pair.NonBlocking);
        SocketDiagnosis list = new(theirs);
        List<byte[]> corpus = Replies();
        Bytes bytes = new(32 * 1024);
        byte[] request = new byte[256];
        new Inputs(output, 20_000).Try((ref Chance chance) =>
        {
            for (int replies = 1 + chance.Below(3); replies > 0; replies--)
            {
                bytes.Set(corpus[chance.Below(corpus.Count)]);
                if (!chance.OneIn(4))
                    bytes.Change(ref chance, corpus);
                Pair.Say(ours, bytes.Span);
            }

            ReadToEnd();
            // What is left of this one is no part of the next: the first end is that of what it left unfinished.
            Drain(theirs, ours, request);
            Pair.Say(ours, Done);
            Pair.Say(ours, Done);
            ReadToEnd();
            Drain(theirs, ours, request);
        });
        Descriptors.Close(theirs);
        Descriptors.Close(ours);

        void ReadToEnd()
        {
            Assert.True(list.Begin(6, 2).Ok);
            int steps = 0;
            while (list.Next(out _) is { Ok: true, Value: > 0 } or { Error: Errno.EAGAIN })
                Assert.True(++steps < MostSockets, "a list without end");
        }
    }

    static unsafe void Drain(int theirs, int ours, byte[] buffer)
    {
        fixed (byte* p = buffer)
        {
            while (Sockets.Receive(theirs, p, buffer.Length).Ok)
            {
            }

            while (Sockets.Receive(ours, p, buffer.Length).Ok)
            {
            }
        }
    }

    /// <summary>What the kernel says here, as it is.</summary>
    static unsafe List<byte[]> Replies()
    {
        using System.Net.Sockets.Socket four = new(System.Net.Sockets.AddressFamily.InterNetwork, System.Net.Sockets.SocketType.Stream, System.Net.Sockets.ProtocolType.Tcp);
        using System.Net.Sockets.Socket six = new(System.Net.Sockets.AddressFamily.InterNetworkV6, System.Net.Sockets.SocketType.Stream, System.Net.Sockets.ProtocolType.Tcp);
        four.Bind(new System.Net.IPEndPoint(System.Net.IPAddress.Loopback, 0));
        four.Listen();
        six.Bind(new System.Net.IPEndPoint(System.Net.IPAddress.IPv6Loopback, 0));
        six.Listen();
        List<byte[]> replies = [];
        int fd = Result.Of(Libc.socket(16, 3 | 0x800, 4)).OrThrow("netlink");
        byte[] buffer = new byte[32 * 1024];
        fixed (byte* p = buffer)
        {
            Span<byte> request = stackalloc byte[72];
            request.Clear();
            foreach (byte family in (byte[])[2, 10])
            {
                request[0] = 72;
                request[4] = 20;
                request[7] = 3;
                request[6] = 1;
                request[16] = family;
                request[17] = 6;
                BitConverter.TryWriteBytes(request[20..], 1u << 10);
                fixed (byte* q = request)
                    Sockets.Send(fd, q, 72).OrThrow("request");
                while (Sockets.Receive(fd, p, buffer.Length) is { Ok: true, Value: > 0 and int length })
                    replies.Add(buffer[..length]);
            }
        }

        Descriptors.Close(fd);
        return replies;
    }
}
