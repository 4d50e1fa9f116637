using System.Runtime.CompilerServices;
using Pesto.Linux;

namespace Pesto.Forwarder.Udp;

/// <summary>
/// What tells one UDP flow from another: the client, and to which of our addresses and ports it sends. The listening socket is no
/// part of it, so a flow outlives a change of sockets that leaves its address and port served.
/// </summary>
/// <param name="Local">The address of ours that the client sent to; "::" if it was a multicast group.</param>
/// <param name="Scope">The interface that a link-local client belongs to, else 0.</param>
/// <param name="Port">The port that we listen on.</param>
/// <param name="Pif">The index of the pif that listens.</param>
public readonly record struct UdpFlowKey(Address Client, Address Local, uint Scope, ushort ClientPort, ushort Port, byte Pif)
{
    // Random, so that ports can't be chosen from outside in such a way that many flows fall into one bucket.
    static readonly ulong Seed = (ulong)Random.Shared.NextInt64() << 1, OtherSeed = (ulong)Random.Shared.NextInt64() << 1;

    /// <summary>The client as the kernel wants it named, on a socket of its own family or of both.</summary>
    public SocketAddress ClientAddress => SocketAddress.Of(Client, ClientPort, Scope);

    ulong Numbers => ((ulong)Scope << 32) | ((ulong)ClientPort << 16) | Port;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public bool Equals(UdpFlowKey other) =>
        Client.Low == other.Client.Low && Numbers == other.Numbers && Client.High == other.Client.High
        && Local.Low == other.Local.Low && Local.High == other.Local.High && Pif == other.Pif;

    public override int GetHashCode()
    {
        ulong client = Mix(Client.High ^ Seed, Client.Low ^ OtherSeed);
        ulong local = Mix(Local.High ^ OtherSeed ^ Pif, Local.Low ^ Seed);
        return (int)Mix(client ^ Numbers ^ Seed, local ^ OtherSeed);
    }

    /// <summary>The two halves of the product, each of which has something of every bit of both factors.</summary>
    static ulong Mix(ulong a, ulong b)
    {
        ulong high = Math.BigMul(a, b, out ulong low);
        return high ^ low;
    }
}
