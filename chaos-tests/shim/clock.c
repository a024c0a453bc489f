/*
 * A wall clock that is ahead, for processes that know nothing of it: to CLOCK_REALTIME are added so many milliseconds as
 * WALL_CLOCK_AHEAD_MS says. All other clocks are as they are, and so are the times of files.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long long ahead;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void read_ahead(void)
{
    const char *text = getenv("WALL_CLOCK_AHEAD_MS");
    ahead = text ? strtoll(text, NULL, 10) : 0;
    real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = real_clock_gettime ? real_clock_gettime(clock, now) : (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && clock == CLOCK_REALTIME && ahead != 0) {
        long long nanos = now->tv_nsec + ahead % 1000 * 1000000;
        now->tv_sec += ahead / 1000 + nanos / 1000000000;
        now->tv_nsec = nanos % 1000000000;
    }
    return result;
}
