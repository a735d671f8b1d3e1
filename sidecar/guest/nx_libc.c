/* What wasi-libc would import from WASI. The guest gets none of it: these definitions win over the library's, so that the
 * final module imports from "nexus" alone. Output goes nowhere, files do not exist, abort traps. */

static double nx_segment_time = -1; /* milliseconds since 1970; -1: not asked yet in this segment */

static double nx_time_ms(void)
{
    if (nx_segment_time < 0)
        nx_segment_time = __nexus_now();
    return nx_segment_time;
}

static int nx_gettimeofday(struct timeval *tv, void *zone)
{
    double ms = nx_time_ms();
    (void)zone;
    tv->tv_sec = (time_t)(ms / 1000);
    tv->tv_usec = (suseconds_t)((int64_t)ms % 1000 * 1000);
    return 0;
}

static int nx_clock_gettime(clockid_t id, struct timespec *ts)
{
    double ms = nx_time_ms();
    (void)id;
    ts->tv_sec = (time_t)(ms / 1000);
    ts->tv_nsec = (long)((int64_t)ms % 1000 * 1000000);
    return 0;
}

/* Called (by a build-time patch of quickjs.c) where QuickJS is about to throw for want of memory: the host learns of it even if
 * the handler catches the error, and there is room for the error itself. */
static uint32_t nx_out_of_memory;
static size_t nx_on_out_of_memory(void)
{
    nx_out_of_memory++;
    return nx_out_of_memory == 1 ? 64 * 1024 : 0;
}

/* Called (by build-time patches) where an allocation goes beyond the limit: all the bytes that there would be with it. */
static size_t nx_memory_wanted;
static void nx_on_refused(size_t wanted)
{
    nx_memory_wanted = wanted;
}

#define NX_EBADF 8

int32_t __imported_wasi_snapshot_preview1_clock_time_get(int32_t id, int64_t precision, int32_t out)
{
    (void)id, (void)precision;
    *(uint64_t *)(uintptr_t)out = 0;
    return 0;
}
int32_t __imported_wasi_snapshot_preview1_fd_close(int32_t fd) { (void)fd; return NX_EBADF; }
int32_t __imported_wasi_snapshot_preview1_fd_fdstat_get(int32_t fd, int32_t out) { (void)fd, (void)out; return NX_EBADF; }
int32_t __imported_wasi_snapshot_preview1_fd_seek(int32_t fd, int64_t offset, int32_t whence, int32_t out)
{
    (void)fd, (void)offset, (void)whence, (void)out;
    return NX_EBADF;
}
int32_t __imported_wasi_snapshot_preview1_fd_write(int32_t fd, int32_t iovs, int32_t count, int32_t out)
{
    (void)fd, (void)iovs, (void)count, (void)out;
    return NX_EBADF;
}
_Noreturn void __imported_wasi_snapshot_preview1_proc_exit(int32_t code) { (void)code; __builtin_trap(); }
