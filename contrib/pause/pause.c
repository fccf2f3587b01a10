/*
 * The first process of a pod sandbox. It does three things and nothing else: it keeps the pod's
 * namespaces alive, it collects processes whose parents have died (as process 1 of a pod that
 * shares its process namespace), and it ends at once when it is asked to.
 *
 * Signals are blocked and waited for instead of handled: the kernel throws away a signal that
 * process 1 has neither handled nor blocked, and a blocked one cannot interrupt anything.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void reap(void) {
    pid_t pid;
    do {
        pid = waitpid(-1, NULL, WNOHANG);
    } while (pid > 0 || (pid < 0 && errno == EINTR));
}

int main(void) {
    sigset_t awaited;
    sigemptyset(&awaited);
    sigaddset(&awaited, SIGINT);
    sigaddset(&awaited, SIGTERM);
    sigaddset(&awaited, SIGCHLD);
    if (sigprocmask(SIG_BLOCK, &awaited, NULL) != 0) {
        return 1;
    }
    for (;;) {
        int signal = sigwaitinfo(&awaited, NULL);
        if (signal == SIGCHLD) {
            reap();
        } else if (signal == SIGINT || signal == SIGTERM) {
            return 0;
        } else if (signal < 0 && errno != EINTR) {
            return 2;
        }
    }
}
