using System.Globalization;
using Pesto.Linux;

namespace Pesto.Bench.Traffic;

/// <summary>
/// The verbs by which the comparison starts both ends of the traffic as processes of their own:
/// <c>server MODE PORT</c>, <c>load KIND ADDRESS PORT COUNT SIZE WARM-UP SECONDS</c>, and <c>connect-loop ADDRESS PORT [SECONDS]</c>.
/// </summary>
static class TrafficVerbs
{
    public const string TcpExchange = "tcp-exchange";
    public const string UdpExchange = "udp-exchange";
    public const string Up = "up";
    public const string Down = "down";
    public const string Connect = "connect";
    public const string UdpFlood = "flood";
    public const string UdpFloodSegmented = "flood-segmented";
    public const string Idle = "idle";

    public static int Server(string[] args)
    {
        CompileErrorPath();
        return Traffic.Server.Run(args[0], ushort.Parse(args[1], CultureInfo.InvariantCulture));
    }

    public static int Load(string[] args)
    {
        CompileErrorPath();
        SocketAddress to = Parse(args[1], args[2]);
        int count = int.Parse(args[3], CultureInfo.InvariantCulture);
        int size = int.Parse(args[4], CultureInfo.InvariantCulture);
        Measure measure = new(double.Parse(args[5], CultureInfo.InvariantCulture), double.Parse(args[6], CultureInfo.InvariantCulture));
        return args[0] switch
        {
            TcpExchange => Exchanges.Run(measure, stream: true, to, count, size),
            UdpExchange => Exchanges.Run(measure, stream: false, to, count, size),
            Up => Streams.Run(measure, up: true, to, count),
            Down => Streams.Run(measure, up: false, to, count),
            Connect => new Connections(measure, to, count).Run(untilInputEnds: false),
            UdpFlood => Flood.Run(measure, to, segmented: false),
            UdpFloodSegmented => Flood.Run(measure, to, segmented: true),
            Idle => Traffic.Idle.Run(to, count),
            _ => throw new ArgumentException($"{args[0]}: no such load"),
        };
    }

    /// <summary>One connection after the other to an echoing server, until the time is up or the standard input ends; then how it went, as JSON.</summary>
    public static int ConnectLoop(string[] args)
    {
        CompileErrorPath();
        double seconds = args.Length > 2 ? double.Parse(args[2], CultureInfo.InvariantCulture) : double.PositiveInfinity;
        Measure measure = new(0, Math.Min(seconds, 1e9), announced: false);
        return new Connections(measure, Parse(args[0], args[1]), 1).Run(untilInputEnds: args.Length <= 2);
    }

    static SocketAddress Parse(string address, string port) => Address.TryParse(address, out Address parsed)
        ? SocketAddress.Of(parsed, ushort.Parse(port, CultureInfo.InvariantCulture))
        : throw new ArgumentException($"{address}: not an IP address");

    // Compiling what reads errno only after the first failure could change errno.
    static void CompileErrorPath() => _ = Result.Of(-1).Ok;
}
