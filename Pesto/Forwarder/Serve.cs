using Pesto.CommandLine;
using Pesto.Forwarder.Startup;
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
                Say(1, options.Help ? ServeOptions.Role.Help() : VersionText.Value);
                return 0;
            }

            if (Reexecution.IsFinalStage)
            {
                Reexecution.CloseUserNamespace(options.UsernsPath);
                return new Service(options).Run();
            }

            Reexecution.ForgetInherited(options.NetnsPath, options.UsernsPath, options.LogPath, options.PidPath);
            if (options.RunAs is Identity wanted && wanted != new Identity(Processes.User, Processes.Group))
                Become(wanted);
            UserNamespace.Way way = UserNamespace.Find(options);
            if (!options.NoSandbox)
                Privileges.SetNoNewPrivileges();
            return Reexecution.Again(!options.Foreground, way, arguments);
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

    /// <summary>Changes the user, and keeps two capabilities: to listen on ports below 1024, and to rebind a socket from one interface to another.</summary>
    static void Become(Identity wanted)
    {
        Privileges.KeepCapabilitiesOnSetuid();
        Privileges.Become(wanted).OrThrow($"becoming user {wanted.User}, group {wanted.Group}");
        Privileges.Keep(Capability.NetBindService | Capability.NetRaw, overExecution: true);
    }

    static void Say(int fd, string text) => _ = Descriptors.WriteAll(fd, System.Text.Encoding.UTF8.GetBytes(text));
}
