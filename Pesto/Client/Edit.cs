using System.Text;
using Pesto.Linux;
using Pesto.Protocol;
using Pesto.Rules;

namespace Pesto.Client;

/// <summary>Carries out the options that change tables, in order, on the tables as the server listed them.</summary>
sealed class Edit(ServerState state, PortRange ephemeral)
{
    const string EphemeralPath = "/proc/sys/net/ipv4/ip_local_port_range";

    /// <summary>The pifs whose tables a specifier has replaced: the specifiers that follow add to them.</summary>
    readonly List<PifState> _replaced = [];

    /// <summary>What specifiers do: 'A' adds, 'D' deletes, ' ' adds to a table that the first of them clears.</summary>
    char _mode = ' ';

    /// <exception cref="RuleException">What one of the options asks for can't be; the message names it.</exception>
    public static void Apply(ServerState state, List<Command> commands)
    {
        Edit edit = new(state, ReadEphemeral());
        foreach (Command command in commands)
        {
            try
            {
                edit.Apply(command);
            }
            catch (RuleException e)
            {
                throw new RuleException($"{command}: {e.Message}");
            }
        }
    }

    static PortRange ReadEphemeral()
    {
        Span<byte> text = stackalloc byte[64];
        Result read = Files.Read(EphemeralPath, text, out int length);
        if (read.Ok && PortRange.TryParseSysctl(Encoding.ASCII.GetString(text[..length]), out PortRange range))
            return range;
        Message.Debug($"{EphemeralPath}: {(read.Ok ? "not understood" : read.Error.Text())}; taking {PortRange.UsualEphemeral} as ephemeral ports");
        return PortRange.UsualEphemeral;
    }

    void Apply(Command command)
    {
        if (command.Ports is not null)
            ApplyPorts(command, command.Ports);
        else if (command.Letter == 'C')
            Find(command.Text).Table.Clear();
        else
            _mode = command.Letter;
    }

    void ApplyPorts(Command command, PortOption option)
    {
        PifState pif = Find(option.IsOutbound ? Pif.SpliceName : Pif.HostName);
        if (_mode == ' ' && !_replaced.Contains(pif))
        {
            pif.Table.Clear();
            _replaced.Add(pif);
        }

        Specifier specifier = Specifier.Parse(command.Text, option, pif.Table.Capabilities, ephemeral);
        if (specifier.IsByLoopbackAddress)
            Message.Warning($"{command}: interfaces can't be bound to here, listening on the loopback addresses instead");
        bool delete = _mode == 'D';
        if (!delete && specifier.Rules.Count > 0)
            CheckOrder(pif);
        CheckVersion(specifier);
        pif.Table.Apply(specifier, delete);
    }

    /// <summary>
    /// passt's client counts the ports it adds to a table against those it deletes from it, and refuses to add while
    /// the balance is negative. Scripts that run today must not do something else with us tomorrow.
    /// </summary>
    void CheckOrder(PifState pif)
    {
        if (pif.Table.AddedPorts < 0 && !state.HasTransactions)
            throw new RuleException($"more ports were deleted from {RuleText.Printable(pif.Name)} before this than added, so none can be added; add first, or clear the table");
    }

    void CheckVersion(Specifier specifier)
    {
        if (state.Version >= 2)
            return;
        foreach (Rule rule in specifier.Rules)
        {
            if (!rule.Target.IsWildcard)
                throw new RuleException($"the server is too old for target addresses (it speaks version {state.Version} of the protocol)");
        }
    }

    PifState Find(string name) => state.Find(name) ?? throw new RuleException($"the server has no pif {name}");
}
