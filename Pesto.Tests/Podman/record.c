// Stands in Podman's helper folder under the name of a helper, notes what it was started with, and becomes the real one.
// Notes: one JSON object per start, in FOLDER/NAME-PID.json, FOLDER being "record" beside the folder that it was started from.

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static FILE *out;

static void text(const char *bytes, size_t length)
{
    putc('"', out);
    for (size_t i = 0; i < length; i++) {
        unsigned char c = bytes[i];
        if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c < 32 || c > 126)
            fprintf(out, "\\u%04x", c);
        else
            putc(c, out);
    }
    putc('"', out);
}

static void string(const char *s) { text(s, strlen(s)); }

static void list(const char *name, char **values)
{
    fprintf(out, ",\n \"%s\": [", name);
    for (int i = 0; values[i]; i++) {
        fputs(i ? ", " : "", out);
        string(values[i]);
    }
    putc(']', out);
}

static void link_of(const char *name, const char *path)
{
    char target[4096];
    ssize_t length = readlink(path, target, sizeof target);
    if (length < 0)
        return;
    fprintf(out, ",\n \"%s\": ", name);
    text(target, length);
}

static void file(const char *name, const char *path)
{
    static char buffer[65536];
    FILE *in = fopen(path, "r");
    if (!in)
        return;
    size_t length = fread(buffer, 1, sizeof buffer, in);
    fclose(in);
    fprintf(out, ",\n \"%s\": ", name);
    text(buffer, length);
}

// Everything up to the end of standard input, which is put back as a file in memory.
static void input(void)
{
    struct stat what;
    if (fstat(0, &what) || !S_ISFIFO(what.st_mode) && !S_ISSOCK(what.st_mode))
        return;
    size_t size = 0, room = 1 << 24;
    char *all = malloc(room);
    ssize_t count;
    while ((count = read(0, all + size, room - size)) > 0 || count < 0 && errno == EINTR)
        size += count > 0 ? count : 0;
    fputs(",\n \"stdin\": ", out);
    text(all, size);
    int memory = memfd_create("stdin", 0);
    if (write(memory, all, size) != (ssize_t)size)
        exit(125);
    lseek(memory, 0, SEEK_SET);
    dup2(memory, 0);
    close(memory);
    free(all);
}

static void descriptors(int ours)
{
    fputs(",\n \"descriptors\": {", out);
    DIR *folder = opendir("/proc/self/fd");
    struct dirent *entry;
    for (int first = 1; (entry = readdir(folder));) {
        char path[64], target[4096];
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] == '.' || fd == dirfd(folder) || fd == ours)
            continue;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(path, target, sizeof target);
        fprintf(out, "%s\"%d\": ", first ? "" : ", ", fd);
        text(target, length < 0 ? 0 : length);
        first = 0;
    }
    closedir(folder);
    fputs("}", out);
}

int main(int count, char **arguments, char **environment)
{
    char self[4096] = "", path[4608];
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        return 125;
    char *name = strrchr(self, '/') + 1;
    snprintf(path, sizeof path, "%.*s/../record/%s-%d.json", (int)(name - 1 - self), self, name, getpid());
    out = fopen(path, "we");
    if (!out) {
        perror(path);
        return 125;
    }

    fprintf(out, "{\"helper\": \"%s\"", name);
    list("argv", arguments);
    list("environment", environment);
    link_of("cwd", "/proc/self/cwd");
    link_of("root", "/proc/self/root");
    static const char *namespaces[] = {"user", "net", "mnt", "pid", "ipc", "uts", "cgroup"};
    for (size_t i = 0; i < sizeof namespaces / sizeof *namespaces; i++) {
        char key[32];
        snprintf(key, sizeof key, "ns.%s", namespaces[i]);
        snprintf(path, sizeof path, "/proc/self/ns/%s", namespaces[i]);
        link_of(key, path);
    }
    file("uid_map", "/proc/self/uid_map");
    file("status", "/proc/self/status");
    file("stat", "/proc/self/stat");
    file("limits", "/proc/self/limits");
    file("oom_score_adj", "/proc/self/oom_score_adj");
    snprintf(path, sizeof path, "/proc/%d/cmdline", getppid());
    file("parent", path);
    fprintf(out, ",\n \"pid\": %d, \"ppid\": %d, \"pgid\": %d, \"sid\": %d", getpid(), getppid(), getpgid(0), getsid(0));
    descriptors(fileno(out));
    input();
    fputs("}\n", out);
    fclose(out);

    static const char *folders[] = {"/usr/libexec/podman", "/usr/lib/podman", "/usr/bin"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        snprintf(path, sizeof path, "%s/%s", folders[i], name);
        execv(path, arguments);
    }
    perror(name);
    return 125;
}
