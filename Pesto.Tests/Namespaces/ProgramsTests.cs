using System.Text.Json;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Namespaces;

/// <summary>Programs that people use, through an ordinary user's forwarder into his container.</summary>
public sealed class ProgramsTests : IDisposable
{
    static readonly TimeSpan Limit = TimeSpan.FromMinutes(2);

    readonly Testbed _bed;

    public ProgramsTests()
    {
        Account.NeedOrdinary();
        _bed = new Testbed(Account.Ordinary);
    }

    public void Dispose() => _bed.Dispose();

    BackgroundProcess Inside(string program, params string[] arguments) =>
        new Command(program, arguments).In(_bed.Container).As(Account.Ordinary).Start();

    Finished OnHost(string program, params string[] arguments) =>
        new Command(program, arguments).In(_bed.Host).As(Account.Ordinary).Run(Limit);

    [Theory]
    [Needs("iperf3")]
    [InlineData("127.0.0.1", "")]
    [InlineData("127.0.0.1", "-R")]
    [InlineData("::1", "")]
    [InlineData("::1", "-R")]
    public void Iperf3_measures_TCP(string address, string direction)
    {
        using BackgroundProcess server = Inside("iperf3", "-s", "-p", "5201");
        Eventually.True(() => _bed.Container.Accepts(5201), "iperf3 listens");
        using RunningForwarder pesto = _bed.Serve("-t", "5301:5201");
        string[] reverse = direction == "" ? [] : [direction];
        Finished finished = OnHost("iperf3", ["-c", address, "-p", "5301", "-n", "64M", "-P", "4", .. reverse]);
        Assert.True(finished.ExitStatus == 0, $"{finished}");
    }

    [Theory]
    [Needs("iperf3")]
    [InlineData("127.0.0.1", "")]
    [InlineData("127.0.0.1", "-R")]
    [InlineData("::1", "")]
    [InlineData("::1", "-R")]
    public void Iperf3_measures_UDP_and_loses_nothing(string address, string direction)
    {
        using BackgroundProcess server = Inside("iperf3", "-s", "-p", "5201");
        Eventually.True(() => _bed.Container.Accepts(5201), "iperf3 listens");
        using RunningForwarder pesto = _bed.Serve("-t", "5301:5201", "-u", "5301:5201");
        string[] reverse = direction == "" ? [] : [direction];
        // So few bytes in all that they fit into the buffer of whoever receives them, however late he gets to read them.
        Finished finished = OnHost("iperf3", ["-c", address, "-p", "5301", "-u", "-b", "10M", "-l", "200", "-n", "80K", "-w", "200K", "-J", .. reverse]);
        Assert.True(finished.ExitStatus == 0, $"{finished}");
        JsonElement sum = JsonDocument.Parse(finished.Output).RootElement.GetProperty("end").GetProperty("sum");
        Assert.True(sum.GetProperty("packets").GetInt32() >= 400 && sum.GetProperty("lost_packets").GetInt32() == 0, finished.Output);
    }

    [Theory]
    [Needs("dig", "dnsmasq")]
    [InlineData("127.0.0.1", "+notcp")]
    [InlineData("127.0.0.1", "+tcp")]
    [InlineData("::1", "+notcp")]
    [InlineData("::1", "+tcp")]
    public void Dig_asks_dnsmasq(string address, string transport)
    {
        using BackgroundProcess server = Inside(
            "dnsmasq", "--no-daemon", "-C", "/dev/null", "--pid-file=", "--no-resolv", "--no-hosts", "--bind-interfaces",
            "--listen-address=127.0.0.1,::1", "--host-record=example.test,192.0.2.1,2001:db8::1");
        server.WaitUntil(() => _bed.Container.Accepts(53), "dnsmasq listens");
        using RunningForwarder pesto = _bed.Serve("-u", "5353:53", "-t", "5353:53");
        foreach ((string type, string answer) in new[] { ("A", "192.0.2.1"), ("AAAA", "2001:db8::1") })
            Assert.Equal(new Finished(0, $"{answer}\n", ""), OnHost("dig", $"@{address}", "-p", "5353", transport, "+short", "example.test", type));
        Assert.Equal(2, pesto.Statistic(transport == "+tcp" ? "tcp_total" : "udp_total"));
    }

    [Theory]
    [Needs("redis-server", "redis-benchmark")]
    [InlineData("127.0.0.1")]
    [InlineData("::1")]
    public void Redis_benchmark_loses_nothing(string address)
    {
        using BackgroundProcess server = Inside("redis-server", "--port", "6379", "--bind", "127.0.0.1", "::1", "--save", "", "--daemonize", "no", "--dir", _bed.Folder.Path);
        Eventually.True(() => _bed.Container.Accepts(6379), "redis listens");
        using RunningForwarder pesto = _bed.Serve("-t", "7379:6379");
        Finished finished = OnHost("redis-benchmark", "-h", address, "-p", "7379", "-t", "set,get", "-n", "20000", "-c", "20", "-d", "100", "--csv");
        Assert.True(finished.ExitStatus == 0 && finished.Output.Contains("\"GET\"") && finished.Errors == "", $"{finished}");
    }

    [Theory]
    [Needs("curl", "nginx")]
    [InlineData("127.0.0.1")]
    [InlineData("[::1]")]
    public void Curl_fetches_from_nginx(string address)
    {
        string folder = _bed.Folder.Path, content = string.Concat(Enumerable.Repeat("0123456789abcdef", 1 << 16));
        File.WriteAllText(_bed.Folder["page"], content);
        File.WriteAllText(_bed.Folder["nginx.conf"], $$"""
            daemon off;
            user root root;
            pid {{folder}}/nginx.pid;
            error_log stderr;
            events {}
            http {
              access_log off;
              client_body_temp_path {{folder}}/t1; proxy_temp_path {{folder}}/t2; fastcgi_temp_path {{folder}}/t3; uwsgi_temp_path {{folder}}/t4; scgi_temp_path {{folder}}/t5;
              server { listen 80; listen [::]:80; root {{folder}}; }
            }
            """);
        using BackgroundProcess server = Inside("nginx", "-c", _bed.Folder["nginx.conf"], "-e", "stderr", "-p", folder);
        server.WaitUntil(() => _bed.Container.Accepts(80), "nginx listens");
        using RunningForwarder pesto = _bed.Serve("-t", "8080:80");
        Finished finished = OnHost("curl", "-sSf", "--max-time", "60", $"http://{address}:8080/page", $"http://{address}:8080/page");
        Assert.Equal(0, finished.ExitStatus);
        Assert.Equal(content + content, finished.Output);
    }
}
