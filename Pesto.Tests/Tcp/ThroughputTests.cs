using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Tcp;

/// <summary>Much at once passes unharmed, with the programs that people use for it. How fast is for the benchmarks to say.</summary>
public sealed class ThroughputTests
{
    const long Gigabyte = 1_000_000_000;

    [Theory]
    [Needs("iperf3")]
    [InlineData(1, "")]
    [InlineData(8, "")]
    [InlineData(1, "-R")]
    [InlineData(8, "-R")]
    [InlineData(4, "--bidir")]
    public void Iperf3_runs_through_it(int streams, string direction)
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "5201");
        using BackgroundProcess server = new Command("iperf3", "-s", "-1", "--forceflush").In(bed.Container).Start();
        server.WaitUntil(() => server.Output.Contains("listening"), "it listens");
        string[] options = direction == "" ? [] : [direction];
        string report = new Command("iperf3", ["-c", "127.0.0.1", "-J", "-t", "1", "-P", $"{streams}", .. options]).In(bed.Host).RunOrFail();
        JsonElement end = JsonDocument.Parse(report).RootElement.GetProperty("end");
        Assert.True(end.GetProperty("sum_received").GetProperty("bytes").GetInt64() > 1_000_000, report);
        Dictionary<string, long> counters = pesto.Statistics();
        int each = direction == "--bidir" ? 2 : 1;
        Assert.Equal((1 + each * streams, 0), (counters["tcp_total"], counters["refused"] + counters["shed"]));
    }

    [Fact]
    [Needs("curl")]
    public void Curl_gets_a_gigabyte_unharmed()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        byte[] piece = new Pattern(1).Take(1_000_000);
        using TcpService http = new(bed.Container, new IPEndPoint(IPAddress.Loopback, 80), async socket =>
        {
            await socket.ReceiveAsync(new byte[4096]);
            await SendAll(socket, Encoding.ASCII.GetBytes($"HTTP/1.1 200 OK\r\nContent-Length: {Gigabyte}\r\nConnection: close\r\n\r\n"));
            for (long sent = 0; sent < Gigabyte; sent += piece.Length)
                await SendAll(socket, piece);
            socket.Shutdown(SocketShutdown.Send);
            await socket.ReceiveAsync(new byte[1]);
        });
        Finished got = new Command("sh", "-c", "curl -sS --fail http://127.0.0.1:8080/ | sha256sum").In(bed.Host).Run(TimeSpan.FromMinutes(2));
        Assert.Equal($"{HashOfAll(piece)}  -\n", got.Output);
        Assert.Equal("", got.Errors);
        Assert.True(pesto.Statistic("bytes_out") > Gigabyte);
    }

    [Fact]
    [Needs("curl")]
    public async Task Curl_puts_a_gigabyte_unharmed()
    {
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "8080:80");
        TaskCompletionSource<string> hash = new();
        using TcpService http = new(bed.Container, new IPEndPoint(IPAddress.Loopback, 80), async socket =>
        {
            using IncrementalHash sum = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
            byte[] buffer = new byte[256 * 1024];
            int filled = 0;
            int head = -1;
            while (head < 0)
            {
                filled += await socket.ReceiveAsync(buffer.AsMemory(filled));
                head = buffer.AsSpan(0, filled).IndexOf("\r\n\r\n"u8);
            }

            long left = Gigabyte - (filled - head - 4);
            sum.AppendData(buffer, head + 4, filled - head - 4);
            int count;
            while (left > 0 && (count = await socket.ReceiveAsync(buffer)) > 0)
            {
                sum.AppendData(buffer, 0, count);
                left -= count;
            }

            hash.SetResult(Convert.ToHexStringLower(sum.GetHashAndReset()));
            await SendAll(socket, "HTTP/1.1 204 Done\r\nConnection: close\r\n\r\n"u8.ToArray());
        });
        byte[] piece = new Pattern(2).Take(1_000_000);
        File.WriteAllBytes(bed.Folder["piece"], piece);
        string command = $"for i in $(seq {Gigabyte / piece.Length}); do cat {bed.Folder["piece"]}; done | "
            + $"curl -sS --fail -X PUT -H 'Transfer-Encoding:' -H 'Expect:' -H 'Content-Length: {Gigabyte}' --upload-file - http://127.0.0.1:8080/";
        Finished put = new Command("sh", "-c", command).In(bed.Host).Run(TimeSpan.FromMinutes(2));
        Assert.Equal(new Finished(0, "", ""), put);
        Assert.Equal(HashOfAll(piece), await hash.Task);
    }

    static string HashOfAll(byte[] piece)
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        for (long at = 0; at < Gigabyte; at += piece.Length)
            hash.AppendData(piece);
        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    static async Task SendAll(Socket socket, byte[] bytes)
    {
        for (int sent = 0; sent < bytes.Length;)
            sent += await socket.SendAsync(bytes.AsMemory(sent));
    }
}
