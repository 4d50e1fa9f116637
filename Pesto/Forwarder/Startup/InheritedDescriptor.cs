using System.Globalization;
using Pesto.Linux;

namespace Pesto.Forwarder.Startup;

/// <summary>
/// A path that names a descriptor which was open before the program started: /proc/self/fd/N, /dev/fd/N, /dev/stdout, /dev/stderr. Such a path
/// is a symbolic link of the kernel's; an option that does not follow links uses the descriptor itself.
/// </summary>
static class InheritedDescriptor
{
    /// <summary>The descriptor's number, or null if the path is another's.</summary>
    public static int? Of(string? path) => path switch
    {
        null => null,
        "/dev/stdout" => 1,
        "/dev/stderr" => 2,
        _ => NumberAfter("/dev/fd/", path) ?? NumberAfter("/proc/self/fd/", path),
    };

    static int? NumberAfter(string folder, string path) =>
        path.StartsWith(folder) && int.TryParse(path.AsSpan(folder.Length), NumberStyles.None, CultureInfo.InvariantCulture, out int fd) ? fd : null;

    /// <summary>Another descriptor for the same, in place of the inherited one unless that is a standard one. Fails with EBADF.</summary>
    public static Result Take(int fd)
    {
        Result taken = Descriptors.Duplicate(fd);
        if (taken.Ok)
            Close(fd);
        return taken;
    }

    /// <summary>Closes one that has been used, if the path names one, unless it is a standard one.</summary>
    public static void Close(string? path)
    {
        if (Of(path) is int fd)
            Close(fd);
    }

    static void Close(int fd)
    {
        if (fd > 2)
            Descriptors.Close(fd);
    }
}
