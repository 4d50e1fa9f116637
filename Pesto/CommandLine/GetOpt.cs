namespace Pesto.CommandLine;

/// <summary>An option: its letter, its long name and whether it takes an argument. A letter below ' ' stands for none, and only identifies.</summary>
public readonly record struct OptionName(char Letter, string Long, bool TakesArgument = false);

/// <summary>A command line that can't be understood.</summary>
public sealed class UsageException(string message) : Exception(message);

/// <summary>
/// Reads a command line as GNU getopt_long(3) does: letters in clusters, arguments attached or following, long names
/// abbreviated as far as they stay unambiguous, options and operands in any order, and operands only after "--".
/// </summary>
public sealed class GetOpt(string[] args, OptionName[] known)
{
    int next;
    string cluster = "";
    int inCluster;

    /// <summary>What is not an option, in order. Complete once <see cref="Next"/> has returned false.</summary>
    public List<string> Operands { get; } = [];

    /// <summary>Finds the next option.</summary>
    /// <param name="option">The option, by its letter.</param>
    /// <param name="argument">Its argument; empty if it takes none.</param>
    /// <exception cref="UsageException">There is no such option, or its argument is missing or too much.</exception>
    public bool Next(out char option, out string argument)
    {
        if (this.inCluster < this.cluster.Length)
            return this.Letter(out option, out argument);
        while (this.next < args.Length)
        {
            string word = args[this.next++];
            if (word == "--")
            {
                this.Operands.AddRange(args.AsSpan(this.next));
                break;
            }

            if (word.StartsWith("--", StringComparison.Ordinal))
                return this.LongName(word, out option, out argument);
            if (word.Length > 1 && word[0] == '-')
            {
                this.cluster = word;
                this.inCluster = 1;
                return this.Letter(out option, out argument);
            }

            this.Operands.Add(word);
        }

        this.next = args.Length;
        option = default;
        argument = "";
        return false;
    }

    bool Letter(out char option, out string argument)
    {
        char letter = this.cluster[this.inCluster++];
        option = letter;
        argument = "";
        int at = letter < ' ' ? -1 : Array.FindIndex(known, o => o.Letter == letter);
        if (at < 0)
            throw new UsageException($"-{letter}: there is no such option");
        if (!known[at].TakesArgument)
            return true;
        if (this.inCluster < this.cluster.Length)
            argument = this.cluster[this.inCluster..];
        else
            argument = this.FollowingWord($"-{letter}");
        this.inCluster = this.cluster.Length;
        return true;
    }

    bool LongName(string word, out char option, out string argument)
    {
        int equals = word.IndexOf('=');
        string name = equals < 0 ? word[2..] : word[2..equals];
        OptionName found = this.FindLong(name);
        option = found.Letter;
        argument = "";
        if (found.TakesArgument)
            argument = equals < 0 ? this.FollowingWord($"--{found.Long}") : word[(equals + 1)..];
        else if (equals >= 0)
            throw new UsageException($"--{found.Long}: takes no argument");
        return true;
    }

    OptionName FindLong(string name)
    {
        int found = -1;
        for (int i = 0; i < known.Length; i++)
        {
            if (known[i].Long == name)
                return known[i];
            if (!known[i].Long.StartsWith(name, StringComparison.Ordinal))
                continue;
            if (found >= 0)
                throw new UsageException($"--{name}: could be --{known[found].Long} or --{known[i].Long}");
            found = i;
        }

        return found >= 0 ? known[found] : throw new UsageException($"--{name}: there is no such option");
    }

    string FollowingWord(string option) =>
        this.next < args.Length ? args[this.next++] : throw new UsageException($"{option}: needs an argument");
}
