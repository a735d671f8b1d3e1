/* What wasi-libc would import from WASI. The guest gets none of it: these definitions win over the library's, so that the
 * final module imports from "nexus" alone. Output goes nowhere, files do not exist, abort traps. */

static NxShared nx_shared_block;

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

/* ---- the end of an execution ----
 *
 * Set by an error that nothing may catch: an interrupt, or a limit that the host has found used up. Much that is between such
 * an error and the end may swallow an exception (a log call, a stack trace, an iterator that is closed), so the error alone is
 * not relied on: from here on no function of the handler begins (its first poll throws again), no catch and no finally of it
 * is entered (a build-time patch), and no host call of it is made. */
static bool nx_ended;

/* ---- memory that is refused ---- */

static uint32_t nx_out_of_memory; /* refused allocations: the host learns of them even if the handler catches the error */
/* An allocation was refused, and no error that the handler could catch stands for that: the next one does. The engine does not always
 * say what it is about; it may drop the error that was, and fail for what did not come about (nx_throw.c). */
static bool nx_refused_since;
static size_t nx_memory_limit;    /* 0: none. What QuickJS has for its limit is the same, but while an allocation is to fail */
static size_t nx_memory_wanted;   /* all the bytes that there would be with the allocation that was refused last */
static size_t nx_memory_baseline; /* what the pristine guest takes */
static bool nx_error_has_room;
static bool nx_compiling;

/* An allocation is refused. QuickJS's parser does not survive that everywhere: it says so, and ends there. */
static void nx_note_refusal(size_t wanted)
{
    nx_out_of_memory++;
    nx_refused_since = true;
    nx_memory_wanted = wanted;
    if (!nx_compiling)
        return;
    nx_shared_block.out_of_memory = nx_out_of_memory;
    nx_shared_block.memory_wanted = wanted > nx_memory_baseline ? (uint32_t)(wanted - nx_memory_baseline) : 0;
    __builtin_trap();
}

/* limit: QuickJS's own. While an allocation is to fail it stands so low that each one is asked about; at other times that
 * costs nothing. */
static void nx_limit_memory(size_t *limit, size_t bytes)
{
    nx_memory_limit = bytes;
    *limit = nx_shared_block.fail_allocation ? 1 : bytes;
}

/* Called (by build-time patches) where an allocation goes beyond the limit; wanted: all the bytes that there would be. */
static bool nx_refuses(size_t *limit, size_t wanted)
{
    if (nx_shared_block.fail_allocation && wanted <= nx_memory_limit - 1) {
        if (--nx_shared_block.fail_allocation)
            return false;
        *limit = nx_memory_limit;
    }
    nx_note_refusal(wanted);
    return true;
}

/* Called (by a build-time patch) where QuickJS is about to throw for want of memory: there is room for the error itself, once. */
static void nx_on_out_of_memory(size_t *limit)
{
    nx_note_refusal(nx_memory_wanted);
    if (nx_error_has_room || !nx_memory_limit)
        return;
    nx_error_has_room = true;
    nx_limit_memory(limit, nx_memory_limit + 64 * 1024);
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
