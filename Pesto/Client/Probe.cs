using System.Text;
using Pesto.Linux;
using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Client;

/// <summary>
/// Finds out whether ports that are to be added can be opened, by binding to each for a moment, as the server will: it
/// would not tell. That says something only if the server sits where this client does, so it is done only where the
/// server is a passt or pasta; whatever else speaks the protocol may be a stand-in for one elsewhere.
/// </summary>
static class Probe
{
    /// <summary>Ports of rules that must be had and are new, but are taken, not for this user, or on an address or interface that is not there.</summary>
    public static List<Outcome.Failure> Run(Exchange exchange, ServerState before, ServerState wanted)
    {
        List<Outcome.Failure> failures = [];
        if (!IsPasst(exchange.ServerProcess, out bool listensAnywhere))
            return failures;
        // What listens for the namespace is in the namespace, where this client can't look.
        if (wanted.Find(Pif.Host) is not PifState pif || before.Find(Pif.Host) is not PifState old)
            return failures;
        foreach (Rule rule in pif.Table.Rules)
        {
            if (rule.IsWeak || rule.IsScan)
                continue;
            for (int port = rule.First; port <= rule.Last; port++)
            {
                if (!IsHeld(old.Table.Rules, in rule, (ushort)port) && Try(in rule, (ushort)port, listensAnywhere) is Errno error and not Errno.None)
                    failures.Add(new(pif.Name, rule, (ushort)port, error));
            }
        }

        return failures;
    }

    /// <summary>Whether the server itself has the port already, and gives it up or keeps it.</summary>
    static bool IsHeld(ReadOnlySpan<Rule> old, in Rule rule, ushort port)
    {
        Rule single = rule;
        single.First = single.Last = port;
        foreach (ref readonly Rule other in old)
        {
            if (RuleCheck.Conflict(in other, in single))
                return true;
        }

        return false;
    }

    static Errno Try(in Rule rule, ushort port, bool listensAnywhere)
    {
        Errno error = Bindable.Try(rule.Protocol == IpProtocol.Tcp, rule.Address, rule.IsDualStack, rule.Interface.Bytes, port);
        bool matters = error is Errno.EADDRINUSE or Errno.EACCES or Errno.ENODEV || (error == Errno.EADDRNOTAVAIL && !listensAnywhere);
        return matters ? error : Errno.None;
    }

    /// <summary>By its name, as the kernel or its command line has it. One that went to the background left the process that began to listen.</summary>
    /// <param name="listensAnywhere">It takes addresses that the host does not have: it was started with --freebind, as far as one can see.</param>
    static bool IsPasst(int process, out bool listensAnywhere)
    {
        listensAnywhere = false;
        byte[] text = new byte[4096];
        if (process <= 0 || !Files.Read($"/proc/{process}/cmdline", text, out int length).Ok)
            return true;
        bool isPasst = false;
        foreach (string argument in Encoding.UTF8.GetString(text.AsSpan(0, length)).Split('\0'))
        {
            string name = argument[(argument.LastIndexOf('/') + 1)..];
            if (name is "passt" or "pasta" or "passt.avx2" or "pasta.avx2")
                isPasst = true;
            // Long options can be abbreviated: this is as far as that goes.
            else if (argument.Length > 3 && "--freebind".StartsWith(argument, StringComparison.Ordinal))
                listensAnywhere = true;
        }

        return isPasst;
    }
}
