using Pesto.Bench.Compare;

namespace Pesto.Bench.Peers;

/// <summary>nginx with its stream module and as many workers as processors, over the veth pair. Larger buffers than usual suit it.</summary>
sealed class Nginx : Peer
{
    const string Configuration = "/run/nginx.conf";
    const string Module = "/usr/lib/nginx/modules/ngx_stream_module.so";

    public override string Name => "nginx";

    public override string? Program { get; } = File.Exists(Module) ? Tool.Find("nginx") : null;

    public override string Installation => "apt-get install nginx libnginx-mod-stream";

    public override string Version => VersionIn(Program!, "-v");

    public override Instance Start(Transport transport)
    {
        // Several workers see the datagrams of one client only if the kernel picks the same one each time (reuseport).
        string kind = transport == Transport.Tcp ? "" : " udp reuseport";
        File.WriteAllText(Configuration, $$"""
            daemon off;
            user root;
            pid /run/nginx.pid;
            error_log stderr;
            worker_processes auto;
            worker_rlimit_nofile 20000;
            load_module {{Module}};
            events { worker_connections 16384; }
            stream {
                server {
                    listen {{Topology.ListenAddress}}:{{Topology.ListenPort}}{{kind}};
                    proxy_buffer_size 64k;
                    proxy_pass {{Topology.TargetAddress}}:{{Topology.ServerPort}};
                }
            }

            """);
        return new(new(Name, [Program!, "-c", Configuration, "-e", "stderr"]));
    }
}
