using Pesto.Linux;

namespace Pesto.Forwarder;

/// <summary>
/// The UNIX socket on which clients look at the tables and replace them. One client has its turn at a time, since what it
/// reads is what it replaces; the others wait in order, connected, in the kernel's queue, and are greeted when their turn comes.
/// </summary>
public sealed class ControlSocket : IEventHandler, ITimed
{
    const int Backlog = 4096;
    const long RetryMilliseconds = 100;

    readonly Loop loop;
    readonly Session session;
    readonly string path;
    readonly Files.FileIdentity identity;
    readonly uint owner;
    readonly bool idsMeanSomething;
    readonly int fd;
    readonly ulong key;
    bool choosing;
    bool armed;
    long retryAt = long.MaxValue;

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
        this.key = new EventKey(loop.AddHandler(this), 0, 0).Word;
        loop.AddTimed(this);
        session.Ended = this.Next;
        this.Next();
    }

    public void OnEvents(EventKey eventKey, Events events) => this.Next();

    public long Deadline => this.retryAt;

    public void OnTime(long now)
    {
        this.retryAt = long.MaxValue;
        this.Next();
    }

    void Next()
    {
        // A client that is gone when its turn comes ends its session at once, which asks for the next while this one is being begun.
        if (this.choosing)
            return;
        this.choosing = true;
        bool more = true;
        while (more && this.session.IsIdle)
        {
            Result accepted = Sockets.Accept(this.fd);
            if (accepted.Ok)
                this.Take(accepted.Value);
            else if (!accepted.Is(Errno.EINTR) && !accepted.Is(Errno.ECONNABORTED))
                more = this.WaitForMore(accepted.Error);
        }

        // Events would tell again and again of those who wait for their turn.
        if (!this.session.IsIdle)
            this.Arm(false);
        this.choosing = false;
    }

    void Take(int client)
    {
        Result known = Sockets.Peer(client, out Sockets.PeerIds peer);
        if (known.Ok && (!this.idsMeanSomething || peer.User == this.owner || peer.User == 0))
        {
            this.session.Begin(client, peer);
            return;
        }

        Log.Warn($"control: user {peer.User} (process {peer.Pid}) may not talk to this forwarder");
        Descriptors.Close(client);
    }

    /// <summary>Nobody can be accepted: an event tells when somebody comes, and nothing when descriptors are there again.</summary>
    bool WaitForMore(Errno error)
    {
        bool nobody = error == Errno.EAGAIN;
        this.Arm(nobody);
        if (!this.armed)
            this.retryAt = this.loop.Now + RetryMilliseconds;
        return false;
    }

    void Arm(bool wanted)
    {
        if (wanted != this.armed)
            this.armed = (wanted ? this.loop.Epoll.Watch(this.fd, Events.In, this.key) : this.loop.Epoll.Forget(this.fd)).Ok && wanted;
    }

    /// <summary>Removes the socket from the file system, unless another process has put its own there since.</summary>
    public void Remove()
    {
        if (Files.Look(this.path, out Files.FileIdentity now).Ok && now == this.identity)
            _ = Files.Remove(this.path).Ok;
    }
}
