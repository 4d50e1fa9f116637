using Pesto.Linux;

namespace Pesto.Forwarder;

/// <summary>
/// The UNIX socket on which clients look at the tables and replace them. One client has its turn at a time, since what it
/// reads is what it replaces; the others wait in order, connected, and are greeted when their turn comes.
/// </summary>
public sealed class ControlSocket : IEventHandler, ITimed
{
    const int Backlog = 4096;

    /// <summary>
    /// Clients that may wait with a descriptor of ours each; further ones wait in the kernel. So many are a crowd, in which
    /// those that stall share one time-out: who does not stall then gets his turn within it.
    /// </summary>
    const int MostWaiting = 64;

    const long RetryMilliseconds = 100;

    readonly Loop loop;
    readonly Session session;
    readonly string path;
    readonly Files.FileIdentity identity;
    readonly uint owner;
    readonly bool idsMeanSomething;
    readonly int fd;
    readonly int kind;
    readonly Queue<int> waiting = new(MostWaiting);
    bool choosing;
    bool armed;
    long retryAt = long.MaxValue;

    // So many came that some may wait in the kernel; until nobody waits.
    bool crowded;

    /// <summary>Opens the socket; throws <see cref="LinuxException"/> with the path in its words.</summary>
    /// <param name="idsMeanSomething">False in a user namespace in which other users are not mapped: then the socket's mode alone keeps them out.</param>
    public ControlSocket(Loop loop, Session session, ListeningUnixSocket socket, bool idsMeanSomething)
    {
        this.loop = loop;
        this.session = session;
        this.path = socket.Path;
        this.fd = socket.Fd;
        this.identity = socket.Identity;
        this.owner = Processes.User;
        this.idsMeanSomething = idsMeanSomething;
        Sockets.Listen(this.fd, Backlog).OrThrow($"listening on {this.path}");
        this.kind = loop.AddHandler(this);
        this.Arm().OrThrow($"watching {this.path}");
        session.Ended = this.Next;
        loop.AddTimed(this);
    }

    /// <summary>Clients that are connected and not yet served.</summary>
    public int Waiting => this.waiting.Count;

    public void OnEvents(EventKey key, Events events)
    {
        while (this.waiting.Count < MostWaiting)
        {
            Result accepted = Sockets.Accept(this.fd);
            if (accepted.Ok)
            {
                this.waiting.Enqueue(accepted.Value);
            }
            else if (accepted.Is(Errno.EAGAIN))
            {
                break;
            }
            else if (!accepted.Is(Errno.EINTR) && !accepted.Is(Errno.ECONNABORTED))
            {
                // Descriptors or memory: the event would come again and again.
                this.retryAt = this.loop.Now + RetryMilliseconds;
                this.Disarm();
                break;
            }
        }

        if (this.waiting.Count == MostWaiting)
        {
            this.Disarm();
            this.crowded = true;
            this.session.Hurry();
        }

        this.Next();
    }

    public long Deadline => this.retryAt;

    public void OnTime(long now)
    {
        this.retryAt = long.MaxValue;
        if (!this.Arm().Ok)
            this.retryAt = now + RetryMilliseconds;
    }

    Result Arm()
    {
        if (this.armed)
            return default;
        Result watched = this.loop.Epoll.Watch(this.fd, Events.In, new EventKey(this.kind, 0, 0).Word);
        this.armed = watched.Ok;
        return watched;
    }

    void Disarm()
    {
        if (this.armed)
            _ = this.loop.Epoll.Forget(this.fd).Ok;
        this.armed = false;
    }

    void Next()
    {
        // A client that is gone when its turn comes ends its session at once, which asks for the next while this one is being begun.
        if (this.choosing)
            return;
        this.choosing = true;
        while (this.session.IsIdle && this.waiting.TryDequeue(out int client))
        {
            Result known = Sockets.Peer(client, out Sockets.PeerIds peer);
            if (known.Ok && (!this.idsMeanSomething || peer.User == this.owner || peer.User == 0))
            {
                this.session.Begin(client, peer);
                if (this.crowded)
                    this.session.Hurry();
                continue;
            }

            Log.Warn($"control: user {peer.User} (process {peer.Pid}) may not talk to this forwarder");
            Descriptors.Close(client);
        }

        this.choosing = false;
        this.crowded &= this.waiting.Count > 0;
        if (this.waiting.Count < MostWaiting && this.retryAt == long.MaxValue && !this.Arm().Ok)
            this.retryAt = this.loop.Now + RetryMilliseconds;
    }

    /// <summary>Where the socket is in the file system, and which file it is.</summary>
    public (string Path, Files.FileIdentity Identity) File => (this.path, this.identity);
}
