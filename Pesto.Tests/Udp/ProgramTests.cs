using System.Text.Json;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Udp;

/// <summary>Programs that people use, through the forwarder.</summary>
public sealed class ProgramTests
{
    [SkippableTheory]
    [InlineData("127.0.0.1", false)]
    [InlineData("127.0.0.1", true)]
    [InlineData("::1", false)]
    [InlineData("::1", true)]
    public void Iperf3_measures_UDP_in_both_directions(string address, bool reverse)
    {
        Need("iperf3");
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-t", "5201", "-u", "5201");
        using BackgroundProcess server = new Command("iperf3", "-s", "-1", "--forceflush").In(bed.Container).Start();
        server.WaitUntil(() => server.Output.Contains("listening"), "it listens");
        string[] direction = reverse ? ["-R"] : [];
        // So few bytes in all that they fit into the buffer of whoever receives them, however late he gets to read them.
        string json = new Command("iperf3", ["-c", address, "-u", "-b", "10M", "-l", "200", "-n", "80K", "-w", "200K", "-J", .. direction]).In(bed.Host).RunOrFail();
        JsonElement sum = JsonDocument.Parse(json).RootElement.GetProperty("end").GetProperty("sum");
        Assert.True(sum.GetProperty("packets").GetInt32() >= 400 && sum.GetProperty("lost_packets").GetInt32() == 0, json);
    }

    [SkippableFact]
    public void Dig_asks_dnsmasq()
    {
        Need("dig");
        Need("dnsmasq");
        using Testbed bed = new();
        using RunningForwarder pesto = bed.Serve("-u", "5353:53", "-t", "5353:53");
        using BackgroundProcess server = new Command(
            "dnsmasq", "-k", "-C", "/dev/null", "-u", "root", "--pid-file=", "--no-resolv", "--no-hosts", "--bind-interfaces",
            "--listen-address=127.0.0.1,::1", "--host-record=example.test,192.0.2.1,2001:db8::1").In(bed.Container).Start();
        server.WaitUntil(() => bed.Container.Accepts(53), "it listens");
        foreach (string address in new[] { "127.0.0.1", "::1" })
        {
            foreach ((string type, string answer) in new[] { ("A", "192.0.2.1"), ("AAAA", "2001:db8::1") })
                Assert.Equal($"{answer}\n", new Command("dig", $"@{address}", "-p", "5353", "+short", "example.test", type).In(bed.Host).RunOrFail());
        }

        Assert.Equal(4, pesto.Statistic("udp_total"));
    }

    static void Need(string program) => Skip.IfNot(
        (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Append("/usr/sbin").Any(folder => File.Exists(Path.Combine(folder, program))),
        $"{program} is not installed");
}
