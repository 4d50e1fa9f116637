using Pesto.Client;
using Pesto.Linux;
using Pesto.Protocol;

namespace Pesto.Tests.Fuzz;

/// <summary>A server that says anything gets our client to nothing but an answer or an error that can be printed.</summary>
public sealed class ClientFuzz(ITestOutputHelper output)
{
    [Fact]
    public void Any_listing_is_read_or_refused()
    {
        Bytes bytes = new(ServerState.MostBytes + 4096);
        new Inputs(output, 20_000).Try((ref Chance chance) =>
        {
            bytes.Set(chance.Of<byte[]>(Corpora.Listings.ToArray()));
            bytes.Change(ref chance, Corpora.Listings);
            ServerState? state = null;
            try
            {
                // As it comes over a connection: as much as is asked for, and no more.
                for (int length = 0; state is null && length <= bytes.Length;)
                {
                    state = ServerState.Read(bytes.Span[..length], out int needed);
                    Assert.True(state is not null || (needed > length && needed <= ServerState.MostBytes), $"needs {needed} bytes, has {length}");
                    length = state is null ? needed : length;
                }
            }
            catch (ProtocolException e)
            {
                AssertPrintable(e.Message);
            }

            if (state is null)
                return;
            AssertPrintable(Listing.Text("tables", "path", state));
            System.Text.Json.JsonDocument.Parse(Json.Text("path", state, null)).Dispose();
            Assert.True(state.WriteUpdate().Length < ServerState.MostBytes);
        });
    }

    [Fact]
    public void Any_answer_in_a_transaction_is_understood_or_refused()
    {
        Bytes bytes = new(64 * 1024);
        Options options = Options.Parse(["-s", "path"]);
        new Inputs(output, 2_000).Try(
            (ref Chance chance) =>
            {
                bytes.Set(chance.Of<byte[]>(Corpora.Answers.ToArray()));
                bytes.Change(ref chance, Corpora.Answers);
                (int theirs, int ours) = Pair.Open(Pair.Stream);
                try
                {
                    Pair.Say(ours, bytes.Span);
                    _ = Sockets.Shutdown(ours, Sockets.ShutWrite);
                    using Exchange exchange = Exchange.Begin("path", new UnixStream(theirs), 1000);
                    Outcome outcome = TransactionUpdate.Run(exchange, options, exchange.State.Copy(), exchange.State);
                    Assert.True(outcome.IsInForce || outcome.ExitStatus != 0);
                    System.Text.Json.JsonDocument.Parse(Json.Text("path", exchange.State, outcome)).Dispose();
                    AssertPrintable(string.Join('\n', outcome.Failures));
                }
                catch (Exception e) when (e is ProtocolException or LinuxException or RefusedException)
                {
                    AssertPrintable(e.Message);
                }
                finally
                {
                    Descriptors.Close(ours);
                }
            },
            mostAllocated: 2 << 20);
    }

    /// <summary>What goes to a terminal must not steer it.</summary>
    internal static void AssertPrintable(string text) =>
        Assert.True(text.All(c => c == '\n' || !char.IsControl(c)), $"control characters in {Convert.ToHexString(System.Text.Encoding.UTF8.GetBytes(text))}");
}
