/* What people ask of a pod with their own rights, by `exec` and in ephemeral containers.
 *   errand linger 600        an ephemeral container's own program: nothing, for so many seconds
 *   errand stream ARGUMENT   becomes Python with this task: sidecar/start.py
 *   errand export ARGUMENT   likewise
 * The image has no shell that could start Python with its settings. Static, no allocation. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef WORKER_PYTHON
#define WORKER_PYTHON "/usr/local/bin/python3"
#endif
#ifndef WORKER_SCRIPT
#define WORKER_SCRIPT "/nightcap/app/sidecar/start.py"
#endif
enum { MOST_SECONDS = 100000, OTHERWISE_SECONDS = 60 };

static const char *setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

static void quit_well(int number) { (void)number, _exit(0); }

static void linger(const char *seconds) {
    signal(SIGALRM, quit_well), signal(SIGTERM, quit_well), signal(SIGINT, quit_well);
    signal(SIGCHLD, SIG_IGN); /* orphans of what was run here are reaped by the kernel */
    long time = strtol(seconds, 0, 10);
    alarm(time > 0 && time < MOST_SECONDS ? (unsigned)time : OTHERWISE_SECONDS);
    for (;;)
        pause();
}

static int become_python(char *task, char *argument) {
    static const char sorry[] = "errand: Python cannot be started\n";
    char *arguments[] = {(char *)setting("NIGHTCAP_WORKER_PYTHON", WORKER_PYTHON), "-I", "-S", "-E", "-B",
                         (char *)setting("NIGHTCAP_WORKER_SCRIPT", WORKER_SCRIPT), task, argument, 0};
    execve(arguments[0], arguments, environ);
    return write(2, sorry, sizeof sorry - 1) < 0 ? 126 : 127;
}

int main(int count, char **arguments) {
    const char *task = count > 1 ? arguments[1] : "";
    if (!strcmp(task, "linger"))
        linger(count > 2 ? arguments[2] : "");
    if (count > 2 && (!strcmp(task, "stream") || !strcmp(task, "export")))
        return become_python(arguments[1], arguments[2]);
    static const char usage[] = "errand linger SECONDS | stream ARGUMENT | export ARGUMENT\n";
    return write(2, usage, sizeof usage - 1) < 0 ? 1 : 2;
}
