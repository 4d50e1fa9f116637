using System.Net.Sockets;
using Pesto.Tests.Harness;

namespace Pesto.Tests.Interop;

/// <summary>Our client does with a real pasta what the real client does, and tells more.</summary>
[Needs("pasta", "pesto")]
public sealed class ClientTests
{
    [Fact]
    public void Our_client_and_the_real_one_say_the_same_through_a_whole_session()
    {
        using Testbed ours = new(), theirs = new();
        using RunningForwarder one = ours.ServeRealPasta(), other = theirs.ServeRealPasta();
        Session.Compare(one, (pasta, options) => pasta.Pesto(options), other, (pasta, options) => pasta.RealPesto(options));
    }

    [Fact]
    public void An_update_is_in_force_when_our_client_exits()
    {
        using Testbed bed = new();
        using RunningForwarder pasta = bed.ServeRealPasta();
        using TcpService inside = TcpService.Says(bed.Container, 80, "inside");
        for (int port = 8000; port < 8020; port++)
        {
            Assert.Equal(0, pasta.Pesto("-t", $"{port}:80").ExitStatus);
            using Socket client = bed.Host.Connect(port);
            Assert.Equal("inside", client.ReadToEnd());
        }
    }

    [Fact]
    public void A_port_that_is_taken_is_named_and_the_table_is_left_as_it_was()
    {
        using Testbed bed = new();
        using RunningForwarder pasta = bed.ServeRealPasta();
        Assert.Equal(0, pasta.Pesto("-t", "8080").ExitStatus);
        string before = pasta.RealPesto().Output;
        using TcpService taken = TcpService.Echo(bed.Host, 9000);
        Finished refused = pasta.Pesto("-A", "-t", "9000");
        Assert.Equal(1, refused.ExitStatus);
        Assert.Contains("9000", refused.Errors);
        Assert.Equal(before, pasta.RealPesto().Output);
    }

    [Fact]
    public void Our_client_gets_on_with_an_ordinary_users_pasta()
    {
        Account.NeedOrdinary();
        using Testbed bed = new(Account.Ordinary);
        using RunningForwarder pasta = bed.ServeRealPasta();
        using TcpService inside = TcpService.Says(bed.Container, 80, "inside");
        Assert.Equal(0, pasta.Pesto("-t", "8080:80").ExitStatus);
        using Socket client = bed.Host.Connect(8080);
        Assert.Equal("inside", client.ReadToEnd());
    }
}
