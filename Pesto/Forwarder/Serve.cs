using Pesto.Linux;
using Pesto.Rules;

namespace Pesto.Forwarder;

/// <summary>The forwarder's role, <c>pesto serve</c>: from its command line to its exit status.</summary>
public static class Serve
{
    public static int Run(string[] arguments)
    {
        Descriptors.FillStandard();
        try
        {
            ServeOptions options = ServeOptions.Parse(arguments);
            if (options.Help || options.ShowVersion)
            {
                Say(1, options.Help ? ServeOptions.HelpText : Program.VersionText);
                return 0;
            }

            if (Launch.IsFinalStage)
                return new Service(options).Run();
            if (options.RunAs is (uint user, uint group) && (user, group) != (Processes.User, Processes.Group))
                Processes.Become(user, group).OrThrow($"becoming user {user}, group {group}");
            return Launch.Again(!options.Foreground, UserNamespace.Entrance(options), arguments);
        }
        catch (UsageException wrong)
        {
            Say(2, $"pesto serve: {wrong.Message}\nTry \"pesto serve --help\".\n");
        }
        catch (RuleException wrong)
        {
            Say(2, $"pesto serve: {wrong.Message}\n");
        }
        catch (LinuxException failed)
        {
            Say(2, $"pesto serve: {failed.Message}\n");
        }

        return 1;
    }

    static void Say(int fd, string text) => _ = Descriptors.WriteAll(fd, System.Text.Encoding.UTF8.GetBytes(text));
}
