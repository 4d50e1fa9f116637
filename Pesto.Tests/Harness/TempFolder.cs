using Mono.Unix;
using Mono.Unix.Native;

namespace Pesto.Tests.Harness;

/// <summary>A test's own folder, gone with the test. Short, since a UNIX socket's path has room for 107 bytes.</summary>
sealed class TempFolder : IDisposable
{
    public TempFolder()
    {
        Path = Directory.CreateTempSubdirectory("pesto-test-").FullName;
        // Open to an ordinary user's processes, which some tests start; and a forwarder that root started is nobody by the time it removes its files.
        Syscall.chmod(Path, NativeConvert.FromOctalPermissionString("777"));
    }

    public string Path { get; }

    /// <summary>The path of a file in here.</summary>
    public string this[string name] => System.IO.Path.Combine(Path, name);

    public void GiveTo(Account account) => new UnixDirectoryInfo(Path).SetOwner(account.Id, account.Id);

    public void Dispose() => Directory.Delete(Path, recursive: true);
}
