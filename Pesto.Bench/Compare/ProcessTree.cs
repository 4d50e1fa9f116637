using System.Globalization;

namespace Pesto.Bench.Compare;

/// <summary>What a process and its descendants use, from /proc. Some names can be left out: those that only keep a namespace alive.</summary>
sealed class ProcessTree(int root, params string[] ignored)
{
    const double TicksPerSecond = 100;

    public List<int> Members()
    {
        Dictionary<int, List<int>> children = [];
        foreach (string folder in Directory.EnumerateDirectories("/proc"))
        {
            if (!int.TryParse(Path.GetFileName(folder), CultureInfo.InvariantCulture, out int id) || Stat(id) is not { } stat || ignored.Contains(stat.Name))
                continue;
            if (!children.TryGetValue(stat.Parent, out List<int>? list))
                children[stat.Parent] = list = [];
            list.Add(id);
        }

        List<int> members = [root];
        for (int i = 0; i < members.Count; i++)
            members.AddRange(children.GetValueOrDefault(members[i], []));
        return members;
    }

    /// <summary>Processor time, user and system, with that of children and threads that ended.</summary>
    public double CpuSeconds() => Members().Sum(id =>
    {
        // In whole ticks for a process, which says nothing about many small ones; in nanoseconds for a thread.
        (_, _, long own, long children) = Stat(id) ?? ("", 0, 0, 0);
        double threads = UnlessGone(() => Directory.EnumerateDirectories($"/proc/{id}/task").Sum(NanosecondsOf)) / 1e9;
        return Math.Max(threads, own / TicksPerSecond) + (children / TicksPerSecond);
    });

    /// <summary>Makes the highest resident size start from the present one.</summary>
    public void ResetPeak()
    {
        foreach (int id in Members())
            _ = UnlessGone(() => WriteClearRefs(id));
    }

    /// <summary>The highest resident size in KiB; pages that processes share count for each.</summary>
    public long PeakKiB() => Members().Sum(id => Field($"/proc/{id}/status", "VmHWM:"));

    public long ResidentKiB() => Members().Sum(id => Field($"/proc/{id}/status", "VmRSS:"));

    /// <summary>The resident size in KiB with shared pages divided among those that share them.</summary>
    public long ProportionalKiB() => Members().Sum(id => Field($"/proc/{id}/smaps_rollup", "Pss:"));

    public int Descriptors() => Members().Sum(id => UnlessGone(() => Directory.EnumerateFileSystemEntries($"/proc/{id}/fd").Count()));

    /// <summary>Whether somebody traces all of them.</summary>
    public bool IsTraced => Members().All(id => Field($"/proc/{id}/status", "TracerPid:") != 0);

    static (string Name, int Parent, long Ticks, long ChildrensTicks)? Stat(int id) => UnlessGone<(string, int, long, long)?>(() =>
    {
        // "ID (NAME) STATE PARENT ...": the name may contain anything, but nothing after it contains a parenthesis.
        string text = File.ReadAllText($"/proc/{id}/stat");
        int open = text.IndexOf('(');
        int close = text.LastIndexOf(')');
        string[] fields = text[(close + 2)..].Split(' ');
        return (text[(open + 1)..close], Number(fields[1]), fields[11..13].Sum(Number), fields[13..15].Sum(Number));
    });

    static long NanosecondsOf(string task) =>
        UnlessGone(() => long.Parse(File.ReadAllText(task + "/schedstat").Split(' ')[0], CultureInfo.InvariantCulture));

    static int WriteClearRefs(int id)
    {
        File.WriteAllText($"/proc/{id}/clear_refs", "5");
        return 0;
    }

    static int Number(string text) => int.Parse(text, CultureInfo.InvariantCulture);

    static long Field(string file, string name) => UnlessGone(() =>
    {
        string? line = File.ReadLines(file).FirstOrDefault(line => line.StartsWith(name, StringComparison.Ordinal));
        return line == null ? 0 : Number(line[name.Length..].Replace("kB", "", StringComparison.Ordinal).Trim());
    });

    /// <summary>A process may end at any time while one looks at it.</summary>
    static T? UnlessGone<T>(Func<T> look)
    {
        try
        {
            return look();
        }
        catch (IOException)
        {
            return default;
        }
    }
}
