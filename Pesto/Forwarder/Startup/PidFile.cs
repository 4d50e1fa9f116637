using System.Text;
using Pesto.Linux;

namespace Pesto.Forwarder.Startup;

/// <summary>The file that has the number of the forwarder's process in it, in decimal, and a newline.</summary>
static class PidFile
{
    const int Readable = 0x1a4;

    /// <summary>Writes it. What the path names is never followed by way of a symbolic link, and a regular file is replaced, not written to.</summary>
    /// <returns>The file, to be removed at the end; null if the path names what was there before: a device, a FIFO, an inherited descriptor.</returns>
    public static Files.FileIdentity? Write(string path)
    {
        string what = $"pid file {path}";
        int? inherited = InheritedDescriptor.Of(path);
        int fd = inherited ?? Open(path).OrThrow(what);
        Descriptors.WriteAll(fd, Encoding.ASCII.GetBytes($"{Processes.Id}\n")).OrThrow(what);
        Files.FileIdentity identity = Files.Fstat(fd);
        if (inherited is null)
            Descriptors.Close(fd);
        else
            InheritedDescriptor.Close(path);
        return inherited is null && identity.IsRegular ? identity : null;
    }

    static Result Open(string path)
    {
        int forWriting = Files.WriteOnly | Files.NoFollow | Files.NoTerminal | Files.NonBlocking;
        bool exists = Files.Lstat(path, out Files.FileIdentity old).Ok;
        // Another forwarder may have written it, and removes at its end what is still its own: that must not be this one's.
        // A file in a folder from which this user may remove nothing stays, and is written to.
        bool isReplaced = exists && old.IsRegular && Files.Unlink(path).Ok;
        if (!exists || isReplaced)
            return Files.Open(path, forWriting | Files.Create | Files.Exclusive, Readable);
        Result opened = Files.Open(path, forWriting | Files.Truncate);
        if (opened.Is(Errno.ELOOP))
            throw new LinuxException($"pid file {path} (a symbolic link, which is not followed)", Errno.ELOOP);
        return opened;
    }
}
