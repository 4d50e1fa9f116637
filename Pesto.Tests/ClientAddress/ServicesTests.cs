using System.Net.Sockets;
using Pesto.Tests.Harness;

namespace Pesto.Tests.ClientAddress;

/// <summary>Programs that people run name the client, by either protocol and family, in a container of root's and of an ordinary user's.</summary>
public sealed class ServicesTests
{
    public static readonly TheoryData<bool, string, string> Clients = new(
        from ordinary in new[] { false, true }
        from pair in new[] { (Surroundings.HostV4, Surroundings.ClientV4), (Surroundings.HostV6, Surroundings.ClientV6) }
        select (ordinary, pair.Item1, pair.Item2));

    static Surroundings Around(bool ordinary)
    {
        if (ordinary)
            Account.NeedOrdinary();
        return new(ordinary ? Account.Ordinary : null);
    }

    /// <summary>An address as it stands in a URL.</summary>
    static string InUrl(string host) => host.Contains(':') ? $"[{host}]" : host;

    static string Nginx(Surroundings around, string server) => $$"""
        daemon off;
        user root root;
        pid {{around.Bed.Folder["nginx.pid"]}};
        error_log stderr;
        events {}
        http {
          log_format who '$remote_addr $proxy_protocol_addr';
          access_log {{around.Bed.Folder["access"]}} who;
          client_body_temp_path {{around.Bed.Folder["t1"]}}; proxy_temp_path {{around.Bed.Folder["t2"]}}; fastcgi_temp_path {{around.Bed.Folder["t3"]}};
          uwsgi_temp_path {{around.Bed.Folder["t4"]}}; scgi_temp_path {{around.Bed.Folder["t5"]}};
          server { {{server}} return 200 hello; }
        }
        """;

    static BackgroundProcess StartNginx(Surroundings around, string server)
    {
        File.WriteAllText(around.Bed.Folder["nginx.conf"], Nginx(around, server));
        BackgroundProcess nginx = around.Inside("nginx", "-c", around.Bed.Folder["nginx.conf"], "-e", "stderr", "-p", around.Bed.Folder.Path).Start();
        nginx.WaitUntil(() => around.Container.Accepts(80), "nginx listens");
        return nginx;
    }

    static string[] Log(Surroundings around) => File.Exists(around.Bed.Folder["access"]) ? File.ReadAllLines(around.Bed.Folder["access"]) : [];

    [Theory]
    [Needs("nginx", "curl")]
    [MemberData(nameof(Clients))]
    public void Nginx_logs_the_client(bool ordinary, string host, string client)
    {
        using Surroundings around = Around(ordinary);
        using BackgroundProcess nginx = StartNginx(around, "listen 80; listen [::]:80;");
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80");
        Assert.Equal("hello", new Command("curl", "-sSf", $"http://{InUrl(host)}:8080/").In(around.Outside).RunOrFail());
        Eventually.Equal($"{client} -", () => Log(around).LastOrDefault());
    }

    [Theory]
    [Needs("redis-server")]
    [MemberData(nameof(Clients))]
    public void Redis_lists_the_client(bool ordinary, string host, string client)
    {
        using Surroundings around = Around(ordinary);
        using BackgroundProcess redis = around.Inside("redis-server", "--port", "6379", "--bind", "*", "-::*", "--protected-mode", "no", "--save", "", "--dir", around.Bed.Folder.Path).Start();
        redis.WaitUntil(() => around.Container.Accepts(6379), "redis listens");
        using RunningForwarder pesto = around.Bed.Serve("-t", "7379:6379");
        using Socket socket = around.Connect(host, 7379);
        socket.Send("CLIENT LIST\r\n"u8);
        byte[] buffer = new byte[4096];
        string list = System.Text.Encoding.ASCII.GetString(buffer, 0, socket.Receive(buffer));
        Assert.Contains($" addr={InUrl(client)}:{socket.Here().Port} ", list);
    }

    [Theory]
    [Needs("dnsmasq", "dig")]
    [MemberData(nameof(Clients))]
    public void Dnsmasq_logs_who_asks(bool ordinary, string host, string client)
    {
        using Surroundings around = Around(ordinary);
        using BackgroundProcess dnsmasq = around.Inside(
            "dnsmasq", "--no-daemon", "-C", "/dev/null", "--pid-file=", "--no-resolv", "--no-hosts", "--log-queries", "--log-facility=-", "--host-record=example.test,192.0.2.1").Start();
        dnsmasq.WaitUntil(() => around.Container.Accepts(53), "dnsmasq listens");
        using RunningForwarder pesto = around.Bed.Serve("-u", "5353:53", "-t", "5353:53");
        foreach (string transport in new[] { "+notcp", "+tcp" })
        {
            Finished asked = new Command("dig", $"@{host}", "-p", "5353", transport, "+short", "+tries=1", "example.test", "A").In(around.Outside).Run();
            Assert.Equal("192.0.2.1\n", asked.Output);
        }

        Eventually.Equal(2, () => (dnsmasq.Output + dnsmasq.Errors).Split($"query[A] example.test from {client}").Length - 1);
    }

    [Theory]
    [Needs("nginx", "curl")]
    [InlineData("proxy", Surroundings.HostV4, Surroundings.ClientV4)]
    [InlineData("proxy-v1", Surroundings.HostV4, Surroundings.ClientV4)]
    [InlineData("proxy", Surroundings.HostV6, Surroundings.ClientV6)]
    [InlineData("proxy-v1", Surroundings.HostV6, Surroundings.ClientV6)]
    public void Nginx_reads_the_PROXY_protocol(string mode, string host, string client)
    {
        using Surroundings around = new();
        using BackgroundProcess nginx = StartNginx(around, "listen 80 proxy_protocol; listen [::]:80 proxy_protocol;");
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80", "--client-address", mode);
        Assert.Equal("hello", new Command("curl", "-sSf", $"http://{InUrl(host)}:8080/").In(around.Outside).RunOrFail());
        Eventually.Equal(client, () => Log(around).LastOrDefault()?.Split(' ')[1]);
    }

    [Theory]
    [Needs("haproxy", "curl")]
    [InlineData("proxy", Surroundings.HostV4, Surroundings.ClientV4)]
    [InlineData("proxy-v1", Surroundings.HostV4, Surroundings.ClientV4)]
    [InlineData("proxy", Surroundings.HostV6, Surroundings.ClientV6)]
    [InlineData("proxy-v1", Surroundings.HostV6, Surroundings.ClientV6)]
    public void HAProxy_reads_the_PROXY_protocol(string mode, string host, string client)
    {
        using Surroundings around = new();
        File.WriteAllText(around.Bed.Folder["haproxy.cfg"], """
            defaults
              mode http
              timeout connect 5s
              timeout client 5s
              timeout server 5s
              log stdout format raw local0
              log-format "client %ci"
            frontend front
              bind :::80 v4v6 accept-proxy
              http-request return status 200 content-type text/plain lf-string "you are %[src]"

            """);
        using BackgroundProcess haproxy = around.Inside("haproxy", "-db", "-f", around.Bed.Folder["haproxy.cfg"]).Start();
        haproxy.WaitUntil(() => around.Container.Accepts(80), "HAProxy listens");
        using RunningForwarder pesto = around.Bed.Serve("-t", "8080:80", "--client-address", mode);
        Assert.Equal($"you are {client}", new Command("curl", "-sSf", $"http://{InUrl(host)}:8080/").In(around.Outside).RunOrFail());
        Eventually.True(() => haproxy.Output.Contains($"client {client}"), "HAProxy logs the client");
    }
}
