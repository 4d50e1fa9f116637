using System.Buffers.Binary;
using System.Net.Sockets;
using Pesto.Protocol;
using Pesto.Rules;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Server;

/// <summary>`pesto serve` does with every recorded stream of bytes on its control socket what the real pasta did with it.</summary>
public sealed class RecordingTests
{
    static readonly Recording All = Recording.Load();

    public static TheoryData<string> Names => new(All.Cases.Select(one => one.Name));

    [Fact]
    public void All_recorded_streams_are_tried() => Assert.Equal(43, All.Cases.Length);

    [Theory]
    [MemberData(nameof(Names))]
    public void A_stream_has_the_effect_that_it_has_on_pasta(string name)
    {
        Recording.Case recorded = All.Cases.Single(one => one.Name == name);
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve();
        _ = Send(pesto, All.Base, out Capabilities capabilities);
        Assert.SkipUnless((capabilities & Capabilities.Udp) != 0, "no UDP yet");
        _ = Send(pesto, recorded.Stream, out _);
        SortedDictionary<byte, string> after = Send(pesto, "", out _);
        Assert.Equal(new SortedDictionary<byte, string>(recorded.After), after);
    }

    /// <summary>Takes the greeting, sends a stream, half-closes and waits until the server closes; gives the rules of each pif before.</summary>
    /// <param name="common">What all pifs can do.</param>
    static SortedDictionary<byte, string> Send(RunningForwarder pesto, string stream, out Capabilities common)
    {
        using Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { SendTimeout = 20_000, ReceiveTimeout = 20_000 };
        socket.Connect(new UnixDomainSocketEndPoint(pesto.Control));
        Assert.Equal(All.Hello, Convert.ToHexStringLower(socket.ReadExactly(Wire.HelloSize)));
        SortedDictionary<byte, string> listing = [];
        common = (Capabilities)uint.MaxValue;
        for (byte pif; (pif = socket.ReadExactly(1)[0]) != Wire.End;)
        {
            byte[] head = socket.ReadExactly(Wire.PifSize - 1);
            common &= (Capabilities)BinaryPrimitives.ReadUInt32BigEndian(head.AsSpan()[^8..]);
            int count = BinaryPrimitives.ReadInt32BigEndian(head.AsSpan()[^4..]);
            listing[pif] = Convert.ToHexStringLower(socket.ReadExactly(count * Wire.RuleSize));
        }

        try
        {
            socket.Send(Convert.FromHexString(stream));
            socket.Shutdown(SocketShutdown.Send);
            Assert.Equal("", socket.ReadToEnd());
        }
        catch (SocketException e) when (e.SocketErrorCode is SocketError.Shutdown or SocketError.ConnectionReset)
        {
            // The server does not read a stream further than to its first fault.
        }

        return listing;
    }
}
