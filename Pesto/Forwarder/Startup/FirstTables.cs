using Pesto.CommandLine;
using Pesto.Forwarder.Commit;
using Pesto.Forwarder.Listening;
using Pesto.Forwarder.Reporting;
using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder.Startup;

/// <summary>The tables that the command line asks for, put in force before the loop runs.</summary>
public sealed class FirstTables(Tables tables, Listeners listeners, Transaction transaction, SelfForwarding? selfForwarding)
{
    /// <summary>Opens what the specifiers want, and says which ports can't be had.</summary>
    /// <returns>False if a port failed that was asked for by number, or if all did.</returns>
    /// <exception cref="RuleException">A specifier is invalid, or all together are.</exception>
    /// <exception cref="UsageException">A specifier is for a pif that there is not.</exception>
    public bool Open(IReadOnlyList<(PortOption Option, string Text)> specifiers)
    {
        FillShadow(specifiers);
        int sockets = tables.SocketsWanted(tables.Shadow);
        if (sockets > listeners.Capacity)
            throw new RuleException($"{sockets} listening sockets are wanted, and {listeners.Capacity} are possible under the limit of descriptors");
        if (selfForwarding?.Find(tables, tables.Shadow) is string loops)
            throw new RuleException(loops);
        if (ClientAddress.WhyNotKept(tables, tables.Shadow) is string why)
            throw new RuleException(why);
        transaction.Apply(commit: true, () => { });
        transaction.RunToEnd();
        return ReportFailures();
    }

    void FillShadow(IReadOnlyList<(PortOption Option, string Text)> specifiers)
    {
        PortRange ephemeral = EphemeralPorts();
        RuleTable[] wanted = new RuleTable[Tables.PifCount];
        for (int i = 0; i < tables.Pifs.Length; i++)
            wanted[i] = new(tables.Pifs[i].Capabilities);
        foreach ((PortOption option, string text) in specifiers)
        {
            int pif = option.IsOutbound ? 1 : 0;
            if (pif >= tables.Pifs.Length)
                throw new UsageException($"{option} {text}: there is no namespace to forward from, give --netns");
            try
            {
                wanted[pif].Apply(Specifier.Parse(text, option, tables.Pifs[pif].Capabilities, ephemeral));
            }
            catch (RuleException wrong)
            {
                throw new RuleException($"{option} {text}: {wrong.Message}");
            }
        }

        tables.ClearShadow();
        for (int i = 0; i < tables.Pifs.Length; i++)
        {
            foreach (ref readonly Rule rule in wanted[i].Rules)
                _ = tables.AddToShadow(i, in rule, out int _);
        }
    }

    unsafe bool ReportFailures()
    {
        bool strict = false;
        foreach (ref readonly ListenFailure failure in transaction.Failures)
        {
            Rule* rule = tables.Rule(failure.Pif, tables.Active, failure.Rule);
            strict |= !rule->IsWeak;
            Log.Error($"{BindFailure.Text(in *rule, failure.Port, failure.Error)}");
        }

        if (transaction.FailureCount > transaction.Failures.Length)
            Log.Error($"and {transaction.FailureCount - transaction.Failures.Length} more ports");
        return !strict && (transaction.FailureCount == 0 || listeners.Count > 0);
    }

    static PortRange EphemeralPorts()
    {
        Span<byte> text = stackalloc byte[64];
        return Files.Read("/proc/sys/net/ipv4/ip_local_port_range", text, out int length).Ok
            && PortRange.TryParseSysctl(System.Text.Encoding.ASCII.GetString(text[..length]), out PortRange range)
                ? range
                : PortRange.UsualEphemeral;
    }
}
