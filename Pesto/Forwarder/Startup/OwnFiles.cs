using System.Runtime.InteropServices;
using Pesto.Linux;

namespace Pesto.Forwarder.Startup;

/// <summary>The files that the forwarder makes, control socket and pid file, which are removed when it ends if they still are its own.</summary>
public sealed class OwnFiles
{
    readonly List<(string Path, Files.FileIdentity Identity)> _files = [];

    /// <summary>Removes them where this process has lost the right to; else null.</summary>
    public Janitor? Janitor { get; set; }

    public ReadOnlySpan<(string Path, Files.FileIdentity Identity)> All => CollectionsMarshal.AsSpan(_files);

    public void Add(string path, Files.FileIdentity identity) => _files.Add((path, identity));

    public void Remove()
    {
        foreach ((string path, Files.FileIdentity identity) in _files)
            Files.UnlinkIfStill(path, identity);
        Janitor?.Finish();
    }
}
