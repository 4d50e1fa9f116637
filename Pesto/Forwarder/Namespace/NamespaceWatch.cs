using System.Globalization;
using Pesto.Forwarder.Loop;
using Pesto.Linux;

namespace Pesto.Forwarder.Namespace;

/// <summary>
/// Ends the loop when the target namespace is gone. The forwarder itself keeps the namespace alive, so what is watched
/// is the reference by which it was named: a process, or a file that the namespace is mounted on.
/// </summary>
public sealed class NamespaceWatch : IEventHandler
{
    readonly EventLoop _loop;
    readonly byte[] _path;
    readonly Files.FileIdentity _identity;
    readonly bool _isProcess;

    /// <param name="path">How the namespace was named.</param>
    /// <param name="identity">The namespace that this was when it was entered.</param>
    public NamespaceWatch(EventLoop loop, string path, Files.FileIdentity identity)
    {
        _loop = loop;
        _path = Files.Text(path);
        _identity = identity;
        Result watched = ProcessOf(path) is int pid ? Processes.Watch(pid) : Result.From(Errno.EINVAL);
        _isProcess = watched.Ok;
        // The kernel tells of every change of what is mounted where by an event of this file.
        int fd = watched.Ok ? watched.Value : Files.Open("/proc/self/mountinfo", Files.ReadOnly).OrThrow("watching mounts");
        loop.Epoll.Add(fd, _isProcess ? Events.In : Events.Priority, new EventKey(loop.AddHandler(this), 0, 0).Word).OrThrow($"watching {path}");
        // It may have gone between entering it and now.
        OnEvents(default, Events.None);
    }

    public bool IsGone { get; private set; }

    public void OnEvents(EventKey key, Events events)
    {
        bool ended = _isProcess && (events & Events.In) != 0;
        if (!ended)
        {
            // EACCES: the forwarder has become "nobody", who may not search a folder of the path. Then it is not known whether it is gone.
            Result looked = Files.Stat(_path, out Files.FileIdentity now);
            if (looked.Ok ? now == _identity : looked.Is(Errno.EACCES))
                return;
        }

        IsGone = true;
        _loop.Stop();
    }

    /// <summary>The process by which a path names its namespace: "/proc/PID/ns/net".</summary>
    static int? ProcessOf(string path) =>
        path.Split('/') is ["", "proc", string number, "ns", "net"] && int.TryParse(number, NumberStyles.None, CultureInfo.InvariantCulture, out int pid) ? pid : null;
}
