/* Stands between the forwarder and the C library (LD_PRELOAD), and makes calls fail as the test says in a file that both have
 * mapped: so the test can change its mind while the forwarder runs, and nothing is called that a sandbox could object to. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile struct {
  int armed;       /* 1: calls fail as follows */
  int after;       /* calls of this function that still succeed first */
  int times;       /* calls that fail then; counts down */
  int error;       /* with this errno */
  int lowest;      /* only on descriptors from here on */
  int failed;      /* how many have failed */
  int request;     /* 1: make the system call below, the next time that the loop, or a client, waits; 0 again when done */
  int repeat;      /* so many times */
  long number, first, second, third, result, nanoseconds;
  long jump;       /* seconds by which all clocks are ahead */
  char function[32];
  char text[256];  /* stands for an argument that is -1 */
  int family;      /* sockets of this family, if it is not 0, and this protocol can't be had, for the following reason */
  int protocol;
  int socket_error;
} *plan;

__attribute__((constructor)) static void prepare(void) {
  const char *path = getenv("PESTO_FAULTS");
  int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
  if (fd < 0)
    return;
  void *mapped = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (mapped != MAP_FAILED)
    plan = mapped;
}

static int fails(const char *function, int fd) {
  if (!plan || !plan->armed || strcmp((const char *)plan->function, function) || (fd >= 0 && fd < plan->lowest))
    return 0;
  if (plan->after > 0) {
    plan->after--;
    return 0;
  }
  if (plan->times <= 0)
    return 0;
  plan->times--;
  plan->failed++;
  errno = plan->error;
  return 1;
}

static void call(void) {
  long arguments[] = { plan->first, plan->second, plan->third };
  for (int i = 0; i < 3; i++)
    if (arguments[i] == -1)
      arguments[i] = (long)plan->text;
  struct timespec start, end;
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (int i = 0; i < plan->repeat; i++) {
    long result = syscall(plan->number, arguments[0], arguments[1], arguments[2]);
    plan->result = result < 0 ? -errno : result;
  }
  clock_gettime(CLOCK_MONOTONIC, &end);
  plan->nanoseconds = (end.tv_sec - start.tv_sec) * 1000000000L + end.tv_nsec - start.tv_nsec;
  plan->request = 0;
}

#define BETWEEN(type, name, fd, parameters, arguments) \
  type name parameters { \
    static type (*real) parameters; \
    if (!real) \
      real = (type (*) parameters)dlsym(RTLD_NEXT, #name); \
    return fails(#name, fd) ? -1 : real arguments; \
  }

int socket(int family, int type, int protocol) {
  static int (*real)(int, int, int);
  if (!real)
    real = (int (*)(int, int, int))dlsym(RTLD_NEXT, "socket");
  if (plan && plan->family && plan->family == family && plan->protocol == protocol) {
    errno = plan->socket_error;
    return -1;
  }
  return fails("socket", -1) ? -1 : real(family, type, protocol);
}
BETWEEN(int, bind, fd, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n))
BETWEEN(int, listen, fd, (int fd, int backlog), (fd, backlog))
BETWEEN(int, accept4, -1, (int fd, struct sockaddr *a, socklen_t *n, int flags), (fd, a, n, flags))
BETWEEN(int, connect, fd, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n))
BETWEEN(int, shutdown, fd, (int fd, int how), (fd, how))
BETWEEN(int, setsockopt, fd, (int fd, int l, int o, const void *v, socklen_t n), (fd, l, o, v, n))
BETWEEN(int, getsockopt, fd, (int fd, int l, int o, void *v, socklen_t *n), (fd, l, o, v, n))

static int is_netlink(int fd) {
  int domain = 0;
  socklen_t length = sizeof domain;
  return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 && domain == AF_NETLINK;
}

/* The same call to the kernel itself, by another name: on any descriptor, since all of these are opened at the start. */
#define BETWEEN_NETLINK(name, fd) \
  (plan && plan->armed && !strcmp((const char *)plan->function, "netlink_" #name) && is_netlink(fd) && fails("netlink_" #name, -1))

ssize_t recv(int fd, void *b, size_t n, int flags) {
  static ssize_t (*real)(int, void *, size_t, int);
  if (!real)
    real = (ssize_t (*)(int, void *, size_t, int))dlsym(RTLD_NEXT, "recv");
  return BETWEEN_NETLINK(recv, fd) || fails("recv", fd) ? -1 : real(fd, b, n, flags);
}

ssize_t send(int fd, const void *b, size_t n, int flags) {
  static ssize_t (*real)(int, const void *, size_t, int);
  if (!real)
    real = (ssize_t (*)(int, const void *, size_t, int))dlsym(RTLD_NEXT, "send");
  return BETWEEN_NETLINK(send, fd) || fails("send", fd) ? -1 : real(fd, b, n, flags);
}

BETWEEN(ssize_t, sendmsg, fd, (int fd, const struct msghdr *m, int flags), (fd, m, flags))
BETWEEN(int, recvmmsg, -1, (int fd, struct mmsghdr *m, unsigned n, int flags, struct timespec *t), (fd, m, n, flags, t))
BETWEEN(int, sendmmsg, -1, (int fd, struct mmsghdr *m, unsigned n, int flags), (fd, m, n, flags))
BETWEEN(int, pipe2, -1, (int ends[2], int flags), (ends, flags))
BETWEEN(ssize_t, splice, -1, (int from, off_t *o, int to, off_t *p, size_t n, unsigned flags), (from, o, to, p, n, flags))
BETWEEN(int, epoll_ctl, fd, (int epoll, int operation, int fd, struct epoll_event *e), (epoll, operation, fd, e))
/* Messages for people, and pipes; between them are the counters by which threads wake each other, of which writing can only be interrupted. */
BETWEEN(ssize_t, write, fd <= 2 || (plan && plan->error == EINTR) ? -1 : fd, (int fd, const void *b, size_t n), (fd, b, n))
BETWEEN(ssize_t, read, -1, (int fd, void *b, size_t n), (fd, b, n))

int fcntl(int fd, int command, ...) {
  static int (*real)(int, int, long);
  if (!real)
    real = (int (*)(int, int, long))dlsym(RTLD_NEXT, "fcntl");
  __builtin_va_list list;
  __builtin_va_start(list, command);
  long argument = __builtin_va_arg(list, long);
  __builtin_va_end(list);
  return fails("fcntl", fd) ? -1 : real(fd, command, argument);
}

/* A descriptor is gone even if closing it fails. */
int close(int fd) {
  static int (*real)(int);
  if (!real)
    real = (int (*)(int))dlsym(RTLD_NEXT, "close");
  int result = real(fd);
  return fails("close", fd) ? -1 : result;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real)
    real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(clock, time);
  if (result == 0 && plan)
    time->tv_sec += plan->jump;
  return result;
}

int epoll_wait(int epoll, struct epoll_event *events, int count, int timeout) {
  static int (*real)(int, struct epoll_event *, int, int);
  if (!real)
    real = (int (*)(int, struct epoll_event *, int, int))dlsym(RTLD_NEXT, "epoll_wait");
  if (plan && plan->request)
    call();
  return fails("epoll_wait", -1) ? -1 : real(epoll, events, count, timeout);
}

int poll(struct pollfd *fds, nfds_t count, int timeout) {
  static int (*real)(struct pollfd *, nfds_t, int);
  if (!real)
    real = (int (*)(struct pollfd *, nfds_t, int))dlsym(RTLD_NEXT, "poll");
  if (plan && plan->request && timeout != 0)
    call();
  return real(fds, count, timeout);
}
