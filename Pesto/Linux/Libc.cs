using System.Runtime.InteropServices;

namespace Pesto.Linux;

/// <summary>
/// The C library's functions, as declared. Nothing outside this folder calls them. Calls that never block have SuppressGCTransition: the
/// runtime adds a few nanoseconds to them, instead of a transition to code during which a garbage collection may run.
/// </summary>
static unsafe class Libc
{
    const string C = "libc";

    [DllImport(C), SuppressGCTransition] static extern int* __errno_location();

    public static int Errno => *__errno_location();

    [DllImport(C)] public static extern byte* strerror(int error);

    // Sockets
    [DllImport(C), SuppressGCTransition] public static extern int socket(int family, int type, int protocol);
    [DllImport(C), SuppressGCTransition] public static extern int bind(int fd, void* address, uint length);
    [DllImport(C), SuppressGCTransition] public static extern int listen(int fd, int backlog);
    [DllImport(C), SuppressGCTransition] public static extern int accept4(int fd, void* address, uint* length, int flags);
    [DllImport(C), SuppressGCTransition] public static extern int connect(int fd, void* address, uint length);
    [DllImport(C), SuppressGCTransition] public static extern int shutdown(int fd, int how);
    [DllImport(C), SuppressGCTransition] public static extern int setsockopt(int fd, int level, int name, void* value, uint length);
    [DllImport(C), SuppressGCTransition] public static extern int getsockopt(int fd, int level, int name, void* value, uint* length);
    [DllImport(C), SuppressGCTransition] public static extern int getsockname(int fd, void* address, uint* length);
    [DllImport(C), SuppressGCTransition] public static extern int getpeername(int fd, void* address, uint* length);
    [DllImport(C), SuppressGCTransition] public static extern nint recv(int fd, void* buffer, nuint length, int flags);
    [DllImport(C), SuppressGCTransition] public static extern nint send(int fd, void* buffer, nuint length, int flags);
    [DllImport(C), SuppressGCTransition] public static extern nint sendto(int fd, void* buffer, nuint length, int flags, void* address, uint addressLength);
    [DllImport(C), SuppressGCTransition] public static extern nint recvmsg(int fd, void* message, int flags);
    [DllImport(C), SuppressGCTransition] public static extern nint sendmsg(int fd, void* message, int flags);
    [DllImport(C), SuppressGCTransition] public static extern int recvmmsg(int fd, void* messages, uint count, int flags, void* timeout);
    [DllImport(C), SuppressGCTransition] public static extern int sendmmsg(int fd, void* messages, uint count, int flags);
    [DllImport(C), SuppressGCTransition] public static extern int inet_pton(int family, byte* text, void* address);
    [DllImport(C), SuppressGCTransition] public static extern byte* inet_ntop(int family, void* address, byte* text, uint size);

    // Descriptors
    [DllImport(C), SuppressGCTransition] public static extern int close(int fd);
    [DllImport(C), SuppressGCTransition] public static extern int pipe2(int* ends, int flags);
    [DllImport(C), SuppressGCTransition] public static extern nint splice(int from, long* fromOffset, int to, long* toOffset, nuint length, uint flags);
    [DllImport(C), SuppressGCTransition] public static extern int fcntl(int fd, int command, nint argument);
    [DllImport(C), SuppressGCTransition] public static extern int epoll_create1(int flags);
    [DllImport(C), SuppressGCTransition] public static extern int epoll_ctl(int epoll, int operation, int fd, void* e);
    [DllImport(C), SuppressGCTransition] public static extern int signalfd(int fd, void* mask, int flags);
    [DllImport(C), SuppressGCTransition] public static extern int eventfd(uint initial, int flags);
    [DllImport(C), SuppressGCTransition] public static extern int dup2(int fd, int to);
    [DllImport(C), SuppressGCTransition] public static extern int fork();
    [DllImport(C), SuppressGCTransition] public static extern void _exit(int status);

    // May block
    [DllImport(C)] public static extern int epoll_wait(int epoll, void* events, int count, int timeout);
    [DllImport(C)] public static extern int poll(void* fds, nuint count, int timeout);
    [DllImport(C)] public static extern int open(byte* path, int flags, int mode);
    [DllImport(C)] public static extern nint read(int fd, void* buffer, nuint length);
    [DllImport(C)] public static extern nint pread(int fd, void* buffer, nuint length, long offset);
    [DllImport(C)] public static extern nint pwrite(int fd, void* buffer, nuint length, long offset);
    [DllImport(C)] public static extern nint write(int fd, void* buffer, nuint length);
    [DllImport(C, EntryPoint = "recv")] public static extern nint recv_wait(int fd, void* buffer, nuint length, int flags);
    [DllImport(C, EntryPoint = "send")] public static extern nint send_wait(int fd, void* buffer, nuint length, int flags);
    [DllImport(C, EntryPoint = "connect")] public static extern int connect_wait(int fd, void* address, uint length);

    // Files and processes
    [DllImport(C)] public static extern int unlink(byte* path);
    [DllImport(C)] public static extern int rename(byte* from, byte* to);
    [DllImport(C)] public static extern int chmod(byte* path, uint mode);
    [DllImport(C)] public static extern uint umask(uint mask);
    [DllImport(C)] public static extern nint readlink(byte* path, byte* buffer, nuint size);
    [DllImport(C)] public static extern int statx(int directory, byte* path, int flags, uint mask, void* result);
    [DllImport(C)] public static extern int access(byte* path, int mode);
    [DllImport(C)] public static extern int isatty(int fd);
    [DllImport(C)] public static extern int getpid();
    [DllImport(C)] public static extern uint geteuid();
    [DllImport(C)] public static extern uint getegid();
    [DllImport(C)] public static extern int setsid();
    [DllImport(C)] public static extern int setns(int fd, int type);
    [DllImport(C)] public static extern int ioctl(int fd, nuint request, void* argument);
    [DllImport(C)] public static extern nint syscall(nint number, nint first, nint second);
    [DllImport(C)] public static extern nint syscall(nint number, nint first, nint second, nint third);
    [DllImport(C)] public static extern nint syscall(nint number, nint first, nint second, nint third, nint fourth);
    [DllImport(C)] public static extern int prctl(int option, nint second, nint third, nint fourth, nint fifth);
    [DllImport(C)] public static extern int fchown(int fd, uint user, uint group);
    [DllImport(C)] public static extern int setgroups(nuint count, void* groups);
    [DllImport(C)] public static extern int setgid(uint group);
    [DllImport(C)] public static extern int setuid(uint user);
    [DllImport(C)] public static extern int execve(byte* path, byte** argv, byte** environment);
    [DllImport(C)] public static extern int posix_spawn(int* pid, byte* path, void* actions, void* attributes, byte** argv, byte** environment);
    [DllImport(C)] public static extern int posix_spawnattr_init(void* attributes);
    [DllImport(C)] public static extern int posix_spawnattr_setflags(void* attributes, short flags);
    [DllImport(C)] public static extern int posix_spawnattr_destroy(void* attributes);
    [DllImport(C)] public static extern int posix_spawn_file_actions_init(void* actions);
    [DllImport(C)] public static extern int posix_spawn_file_actions_addopen(void* actions, int fd, byte* path, int flags, uint mode);
    [DllImport(C)] public static extern int posix_spawn_file_actions_destroy(void* actions);
    [DllImport(C)] public static extern int waitpid(int pid, int* status, int options);
    [DllImport(C)] public static extern int kill(int pid, int signal);
    [DllImport(C)] public static extern nint signal(int number, nint handler);
    [DllImport(C)] public static extern int pthread_sigmask(int how, void* set, void* old);
    [DllImport(C)] public static extern int getrlimit(int resource, void* limit);
    [DllImport(C)] public static extern int setrlimit(int resource, void* limit);
    [DllImport(C)] public static extern void* mmap(void* address, nuint length, int protection, int flags, int fd, long offset);
    [DllImport(C)] public static extern int munmap(void* address, nuint length);
    [DllImport(C), SuppressGCTransition] public static extern int clock_gettime(int clock, void* time);
}
