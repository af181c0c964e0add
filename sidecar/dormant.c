/* The sidecar while it sleeps: PID 1 of the container. Waits for orders without a timer, starts
 * the worker when there are some, reaps it, starts it again when it dies, passes SIGTERM on.
 *   dormant             run
 *   dormant --wait 3s   postStart hook: until the captures are open, at most so long; exits 0 always
 * Static, no allocation, no stdio. The paths repeat nightcap/contract/paths.py (a test compares). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/time.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ORDERS_DIR "/run/nightcap/orders"
#define ORDERS_FILE "orders"
#define SPOOL_DIR "/run/nightcap/spool"
#define OPEN_MARKER ".open"
#ifndef WORKER_PYTHON
#define WORKER_PYTHON "/usr/local/bin/python3"
#endif
#ifndef WORKER_SCRIPT
#define WORKER_SCRIPT "/nightcap/app/sidecar/start.py"
#endif
#ifndef SLOW_POLL_MS
#define SLOW_POLL_MS 5000
#endif
enum { UNWATCHED = -1, BY_SIGNAL = -2 }; /* poll() passes over both */
enum { FIRST_BACKOFF_MS = 100, LAST_BACKOFF_MS = 30000 };
#define STEADY_MS 60000 /* a worker that lived so long begins its backoff anew */

static char orders_file[4096], data_link[4096], open_marker[4096];

static const char *setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

static void join(char into[4096], const char *folder, const char *name) {
    if (strlen(folder) < 4000) /* otherwise it stays empty, which is no file */
        stpcpy(stpcpy(stpcpy(into, folder), "/"), name);
}

static char *digits(char *at, long value, int width) {
    for (int i = width - 1; i >= 0; i--, value /= 10)
        at[i] = (char)('0' + value % 10);
    return at + width;
}

/* One line of JSON on stderr; all texts are constants of this file. */
static void say(const char *level, const char *event, const char *fact, int value) {
    char line[512], *at = line;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    long day = now.tv_sec / 86400 + 719468, second = now.tv_sec % 86400; /* days since 0000-03-01 */
    long era = day / 146097, doe = day % 146097, yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    long doy = doe - (365 * yoe + yoe / 4 - yoe / 100), month = ((5 * doy + 2) / 153 + 2) % 12 + 1;
    long date[] = {yoe + era * 400 + (month <= 2), month, doy - (153 * ((5 * doy + 2) / 153) + 2) / 5 + 1,
                   second / 3600, second / 60 % 60, second % 60, now.tv_nsec / 1000000};
    at = stpcpy(at, "{\"at\":");
    for (int i = 0; i < 7; i++)
        *at++ = "\"--T::."[i], at = digits(at, date[i], "4222223"[i] - '0');
    at = stpcpy(stpcpy(stpcpy(at, "Z\",\"level\":\""), level), "\",\"program\":\"sidecar\",\"event\":\"");
    at = stpcpy(stpcpy(stpcpy(stpcpy(at, event), "\",\""), fact), value < 0 ? "\":-" : "\":");
    value = abs(value);
    at = stpcpy(digits(at, value, value < 10 ? 1 : value < 100 ? 2 : 3), "}\n");
    if (write(2, line, (size_t)(at - line)) < 0)
        return; /* nobody listens: nothing to be done */
}

static long long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static int have_orders(void) {
    char text[256];
    ssize_t count;
    int fd, found = 0; /* the folder behind the link goes right after a swap: try again when it is missing */
    for (int attempt = 0; (fd = open(orders_file, O_RDONLY | O_CLOEXEC)) < 0; attempt++)
        if (attempt == 3)
            return 0;
    while (!found && (count = read(fd, text, sizeof text)) > 0)
        for (ssize_t i = 0; i < count; i++)
            found |= text[i] > ' ';
    close(fd);
    return found;
}

static void read_version(char version[256]) {
    memset(version, 0, 256);
    if (readlink(data_link, version, 255) < 0)
        version[0] = 0;
}

static void quit_well(int number) { (void)number, _exit(0); }

static int wait_open(const char *text) {
    char *unit;
    long ms = strtol(text, &unit, 10);
    ms = strcmp(unit, "ms") ? (ms < 60 ? ms * 1000 : 0) : ms;
    ms = ms > 0 && ms < 60000 ? ms : 3000;
    signal(SIGALRM, quit_well); /* first of all: even a hanging file system ends in time */
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {ms / 1000, ms % 1000 * 1000}}, 0);
    while (have_orders() && access(open_marker, F_OK) != 0)
        poll(0, 0, 5);
    return 0;
}

static pid_t start_worker(void) {
    char *arguments[] = {(char *)setting("NIGHTCAP_WORKER_PYTHON", WORKER_PYTHON), "-I", "-S", "-E", "-B",
                         (char *)setting("NIGHTCAP_WORKER_SCRIPT", WORKER_SCRIPT), 0};
    pid_t worker = fork();
    if (worker == 0) {
        sigset_t none;
        sigemptyset(&none), sigprocmask(SIG_SETMASK, &none, 0);
        execve(arguments[0], arguments, environ);
        say("error", "worker cannot be started", "errno", errno);
        _exit(127);
    }
    return worker;
}

/* A descriptor to poll, or one of the above. Notification is there but silent on gVisor's and old Kata's 9p and
 * newer Kata's virtiofs. A node's pods share 128 inotify instances by default; the older dnotify has no limit. */
static int watch_orders(const char *orders_dir) {
    struct statfs system;
    if (statfs(orders_dir, &system) == 0 && system.f_type != V9FS_MAGIC && system.f_type != FUSE_SUPER_MAGIC) {
        int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK), folder = open(orders_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0 && inotify_add_watch(fd, orders_dir, IN_MOVED_TO | IN_ONLYDIR) >= 0)
            return close(folder), fd;
        if (folder >= 0 && fcntl(folder, F_NOTIFY, DN_RENAME | DN_MULTISHOT) == 0) return BY_SIGNAL;
    }
    say("warning", "orders cannot be watched, looking at them now and then", "every_s", SLOW_POLL_MS / 1000);
    return UNWATCHED;
}

int main(int count, char **arguments) {
    const char *spool_dir = setting("NIGHTCAP_SPOOL_DIR", SPOOL_DIR);
    const char *orders_dir = setting("NIGHTCAP_ORDERS_DIR", ORDERS_DIR);
    join(orders_file, orders_dir, ORDERS_FILE);
    join(data_link, orders_dir, "..data");
    join(open_marker, spool_dir, OPEN_MARKER);
    if (count > 1)
        return strcmp(arguments[1], "--wait") ? 0 : wait_open(count > 2 ? arguments[2] : "3s");

    sigset_t mask;
    sigemptyset(&mask), sigaddset(&mask, SIGCHLD), sigaddset(&mask, SIGTERM), sigaddset(&mask, SIGINT), sigaddset(&mask, SIGIO);
    sigprocmask(SIG_BLOCK, &mask, 0);
    unlink(open_marker); /* of an earlier life of this container */
    struct pollfd wake[] = {{signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK), POLLIN, 0}, {watch_orders(orders_dir), POLLIN, 0}};
    char seen[256], now[256], events[4096];
    struct signalfd_siginfo got;
    read_version(seen); /* first, so that a swap between the two is a change */
    int due = have_orders(), stopping = 0, status;
    long long started = 0, not_before = 0, backoff = FIRST_BACKOFF_MS;
    pid_t worker = 0;
    for (;;) {
        if (due && !worker && !stopping && now_ms() >= not_before) {
            read_version(seen); /* before the start, so that a swap during it is a change */
            started = now_ms(), due = 0;
            if ((worker = start_worker()) < 0)
                worker = 0, due = 1, not_before = started + backoff;
        }
        if (stopping && !worker)
            return 0;
        long long rest = not_before > now_ms() ? not_before - now_ms() : 0;
        poll(wake, 2, worker ? -1 : due ? (int)rest : wake[1].fd == UNWATCHED ? SLOW_POLL_MS : -1);
        while (wake[1].fd >= 0 && read(wake[1].fd, events, sizeof events) > 0)
            ;
        while (read(wake[0].fd, &got, sizeof got) == sizeof got)
            if (got.ssi_signo != SIGCHLD && got.ssi_signo != SIGIO && (stopping = 1) && worker)
                kill(worker, SIGTERM);
        for (pid_t gone; (gone = waitpid(-1, &status, WNOHANG)) > 0;) {
            if (gone != worker)
                continue; /* an orphan that came to us */
            worker = 0;
            if (status == 0 || now_ms() - started > STEADY_MS)
                backoff = FIRST_BACKOFF_MS, not_before = 0;
            if (status == 0)
                continue;
            say("error", "worker died", "status", WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status));
            due = 1, not_before = now_ms() + backoff; /* also without orders: it may have left a spool */
            backoff = backoff * 2 < LAST_BACKOFF_MS ? backoff * 2 : LAST_BACKOFF_MS;
        }
        read_version(now);
        if (!worker && !due && strcmp(now, seen)) { /* while a worker runs it watches for itself */
            memcpy(seen, now, sizeof seen);
            due = have_orders();
        }
    }
}
