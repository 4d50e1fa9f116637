using Pesto.Tests.Harness;

namespace Pesto.Tests.Namespaces;

/// <summary>Programs that people use, through an ordinary user's forwarder into his container.</summary>
public sealed class ProgramsTests : IDisposable
{
    static readonly TimeSpan Limit = TimeSpan.FromMinutes(2);

    readonly Testbed bed;

    public ProgramsTests()
    {
        Account.NeedOrdinary();
        this.bed = new Testbed(Account.Ordinary);
    }

    public void Dispose() => this.bed.Dispose();

    BackgroundProcess Inside(string program, params string[] arguments) =>
        new Command(program, arguments).In(this.bed.Container).As(Account.Ordinary).Start();

    Finished OnHost(string program, params string[] arguments) =>
        new Command(program, arguments).In(this.bed.Host).As(Account.Ordinary).Run(Limit);

    [SkippableTheory]
    [InlineData("127.0.0.1", "")]
    [InlineData("127.0.0.1", "-R")]
    [InlineData("::1", "")]
    [InlineData("::1", "-R")]
    public void Iperf3_measures_TCP(string address, string direction)
    {
        Programs.Need("iperf3");
        using BackgroundProcess server = this.Inside("iperf3", "-s", "-p", "5201");
        Eventually.True(() => this.bed.Container.Accepts(5201), "iperf3 listens");
        using RunningForwarder pesto = this.bed.Serve("-t", "5301:5201");
        string[] reverse = direction == "" ? [] : [direction];
        Finished finished = this.OnHost("iperf3", ["-c", address, "-p", "5301", "-n", "64M", "-P", "4", .. reverse]);
        Assert.True(finished.ExitStatus == 0, $"{finished}");
    }

    [SkippableTheory]
    [InlineData("127.0.0.1")]
    [InlineData("::1")]
    public void Redis_benchmark_loses_nothing(string address)
    {
        Programs.Need("redis-server");
        Programs.Need("redis-benchmark");
        using BackgroundProcess server = this.Inside("redis-server", "--port", "6379", "--bind", "127.0.0.1", "::1", "--save", "", "--daemonize", "no", "--dir", this.bed.Folder.Path);
        Eventually.True(() => this.bed.Container.Accepts(6379), "redis listens");
        using RunningForwarder pesto = this.bed.Serve("-t", "7379:6379");
        Finished finished = this.OnHost("redis-benchmark", "-h", address, "-p", "7379", "-t", "set,get", "-n", "20000", "-c", "20", "-d", "100", "--csv");
        Assert.True(finished.ExitStatus == 0 && finished.Output.Contains("\"GET\"") && finished.Errors == "", $"{finished}");
    }

    [SkippableTheory]
    [InlineData("127.0.0.1")]
    [InlineData("[::1]")]
    public void Curl_fetches_from_nginx(string address)
    {
        Programs.Need("curl");
        Programs.Need("nginx");
        string folder = this.bed.Folder.Path, content = string.Concat(Enumerable.Repeat("0123456789abcdef", 1 << 16));
        File.WriteAllText(this.bed.Folder["page"], content);
        File.WriteAllText(this.bed.Folder["nginx.conf"], $$"""
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
        using BackgroundProcess server = this.Inside("nginx", "-c", this.bed.Folder["nginx.conf"], "-e", "stderr", "-p", folder);
        server.WaitUntil(() => this.bed.Container.Accepts(80), "nginx listens");
        using RunningForwarder pesto = this.bed.Serve("-t", "8080:80");
        Finished finished = this.OnHost("curl", "-sSf", "--max-time", "60", $"http://{address}:8080/page", $"http://{address}:8080/page");
        Assert.Equal(0, finished.ExitStatus);
        Assert.Equal(content + content, finished.Output);
    }
}
