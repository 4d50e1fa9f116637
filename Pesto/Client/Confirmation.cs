using Pesto.Linux;

namespace Pesto.Client;

/// <summary>Whether the user, or a command, says in time that an update that is in force shall stay.</summary>
static class Confirmation
{
    const int PollInterval = 20;

    /// <summary>Characters without a newline that are no answer any more.</summary>
    const int LongestAnswer = 64;

    public static bool Obtain(int seconds, string? command)
    {
        long end = Clock.Milliseconds + (seconds * 1000L);
        return command is null ? Ask(seconds, end) : Check(command, end);
    }

    static bool Ask(int seconds, long end)
    {
        _ = StandardOutput.WriteError($"The new tables are in force. Keep them? [y/N] ({seconds} s) ");
        string answer = "";
        Span<byte> buffer = stackalloc byte[64];
        while (!answer.Contains('\n', StringComparison.Ordinal))
        {
            // What always has more to read, as /dev/zero, must not hold the update up: neither for ever nor to the deadline.
            int left = (int)Math.Max(0, end - Clock.Milliseconds);
            if (answer.Length >= LongestAnswer || left == 0 || !Descriptors.WaitReadable(0, left))
            {
                _ = StandardOutput.WriteError("\n");
                return false;
            }

            Result read = Descriptors.Read(0, buffer);
            if (!read.Ok || read.Value == 0)
                break;
            answer += System.Text.Encoding.UTF8.GetString(buffer[..read.Value]);
        }

        return answer.Trim() is "y" or "Y" or "yes" or "Yes";
    }

    static bool Check(string command, long end)
    {
        // Standard output is for tables and JSON.
        Result child = Processes.StartDetached("/bin/sh", ["sh", "-c", "exec >&2; " + command], []);
        if (!child.Ok)
            throw new LinuxException("--check: starting /bin/sh", child.Error);
        int status;
        while (!Processes.HasEnded(child.Value, out status))
        {
            if (Clock.Milliseconds >= end)
            {
                Processes.KillGroup(child.Value);
                _ = Processes.Wait(child.Value);
                Message.Error($"--check {command}: did not end in time");
                return false;
            }

            Clock.Sleep(PollInterval);
        }

        if (status != 0)
            Message.Error($"--check {command}: exit status {status}");
        return status == 0;
    }
}
