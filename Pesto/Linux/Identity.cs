using System.Globalization;
using System.Text;

namespace Pesto.Linux;

/// <summary>A user and a group to be, by their numbers.</summary>
public readonly record struct Identity(uint User, uint Group)
{
    const uint UsualNobody = 65534;
    const int LargestFile = 1 << 20;

    /// <summary>The user "nobody", or 65534 where /etc/passwd has no such name.</summary>
    public static Identity Nobody => TryParse("nobody", out Identity nobody) ? nobody : new(UsualNobody, UsualNobody);

    /// <summary>
    /// Reads USER or USER:GROUP, names or numbers. Without GROUP it is the user's group in /etc/passwd, or, for a number that is not there, the
    /// group of the same number.
    /// </summary>
    public static bool TryParse(string text, out Identity identity)
    {
        identity = default;
        string[] parts = text.Split(':');
        if (parts.Length > 2)
            return false;
        bool isNumber = TryNumber(parts[0], out uint user);
        string[]? entry = Find("/etc/passwd", line => isNumber ? TryNumber(line[2], out uint id) && id == user : line[0] == parts[0], 4);
        if (!isNumber && (entry is null || !TryNumber(entry[2], out user)))
            return false;
        uint group = entry is not null && TryNumber(entry[3], out uint own) ? own : user;
        bool groupNamed = parts.Length == 2 && !TryNumber(parts[1], out group);
        if (groupNamed && (Find("/etc/group", line => line[0] == parts[1], 3) is not string[] named || !TryNumber(named[2], out group)))
            return false;
        identity = new(user, group);
        return true;
    }

    // setuid(-1) and its like mean "unchanged".
    static bool TryNumber(string text, out uint number) =>
        uint.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out number) && number != uint.MaxValue;

    static string[]? Find(string path, Func<string[], bool> wanted, int fields)
    {
        byte[] text = new byte[LargestFile];
        if (!Files.Read(path, text, out int length).Ok)
            return null;
        foreach (string line in Encoding.UTF8.GetString(text, 0, length).Split('\n'))
        {
            string[] parts = line.Split(':');
            if (parts.Length >= fields && wanted(parts))
                return parts;
        }

        return null;
    }
}
