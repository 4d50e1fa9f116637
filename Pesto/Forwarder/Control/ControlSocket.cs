using Pesto.Linux;

namespace Pesto.Forwarder;

/// <summary>
/// The UNIX socket on which clients look at the tables and replace them. One client has its turn at a time, since what it
/// reads is what it replaces; the others wait in order, connected, and are greeted when their turn comes.
/// </summary>
public sealed class ControlSocket : IEventHandler
{
    const int Backlog = 4096;

    readonly Session session;
    readonly string path;
    readonly Files.FileIdentity identity;
    readonly uint owner;
    readonly bool idsMeanSomething;
    readonly int fd;
    readonly Queue<int> waiting = new(64);
    bool choosing;

    /// <summary>Opens the socket; throws <see cref="LinuxException"/> with the path in its words.</summary>
    /// <param name="idsMeanSomething">False in a user namespace in which other users are not mapped: then the socket's mode alone keeps them out.</param>
    public ControlSocket(Loop loop, Session session, ListeningUnixSocket socket, bool idsMeanSomething)
    {
        this.session = session;
        this.path = socket.Path;
        this.fd = socket.Fd;
        this.identity = socket.Identity;
        this.owner = Processes.User;
        this.idsMeanSomething = idsMeanSomething;
        Sockets.Listen(this.fd, Backlog).OrThrow($"listening on {this.path}");
        int kind = loop.AddHandler(this);
        loop.Epoll.Watch(this.fd, Events.In, new EventKey(kind, 0, 0).Word).OrThrow($"watching {this.path}");
        session.Ended = this.Next;
    }

    /// <summary>Clients that are connected and not yet served.</summary>
    public int Waiting => this.waiting.Count;

    public void OnEvents(EventKey key, Events events)
    {
        while (true)
        {
            Result accepted = Sockets.Accept(this.fd);
            if (accepted.Ok)
                this.waiting.Enqueue(accepted.Value);
            else if (!accepted.Is(Errno.EINTR) && !accepted.Is(Errno.ECONNABORTED))
                break;
        }

        this.Next();
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
                continue;
            }

            Log.Warn($"control: user {peer.User} (process {peer.Pid}) may not talk to this forwarder");
            Descriptors.Close(client);
        }

        this.choosing = false;
    }

    /// <summary>Removes the socket from the file system, unless another process has put its own there since.</summary>
    public void Remove()
    {
        if (Files.Look(this.path, out Files.FileIdentity now).Ok && now == this.identity)
            _ = Files.Remove(this.path).Ok;
    }
}
