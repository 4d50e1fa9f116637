namespace Pesto.Rules;

/// <summary>What a pif can do, as its server says in the listing (the "caps" of the control protocol). Unknown bits are ignored.</summary>
[Flags]
public enum Capabilities : uint
{
    None = 0,
    V4 = 1,
    V6 = 2,
    Tcp = 4,
    Udp = 8,
    Scan = 16,
    Interface = 32,

    /// <summary>
    /// The server understands transactions, Pesto's extension of the protocol. Two bits, since a single one at the end of
    /// the word is what another server's next extension might take too: only both together are ours.
    /// </summary>
    Transactions = 3u << 30,
}
