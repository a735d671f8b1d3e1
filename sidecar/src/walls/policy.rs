//! What an engine worker may ask the kernel for, once it is sealed: a list, with a reason for each line.
//!
//! What is not in it ends the process. The calls that look for a file are refused instead, so that a library which would look
//! for one (a backtrace for its symbols, say) goes without. No line opens a path, makes a socket, memory that can be executed, or
//! another process, or touches one.

use libc::c_long;

use crate::os::PAGEMAP_SCAN;

/// A condition on one argument of a call.
#[derive(Clone, Copy, Debug)]
pub enum Arg {
    /// All 64 bits.
    Is(u8, u64),
    /// The lower 32 bits, of an `int`.
    IsInt(u8, u32),
    /// None of these bits.
    Without(u8, u64),
}

/// When a call is allowed: where any of these holds, each of which is several conditions that all have to.
pub type When = Vec<Vec<Arg>>;

/// One line.
#[derive(Debug)]
pub struct Allowed {
    pub call: c_long,
    /// Empty: always.
    pub when: When,
}

/// Whether files are looked for in vain, or a call is not there.
pub const REFUSED: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
];

/// The flags are in memory, where no filter sees them: the C library takes `clone` where this one is not there.
pub const ABSENT: &[c_long] = &[libc::SYS_clone3];

/// What a thread of the C library is made with, and nothing that is not one.
const THREAD: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID) as u64;

/// Whatever its arguments are.
pub fn always(call: c_long) -> Allowed {
    Allowed { call, when: Vec::new() }
}

/// Where all of any of these hold.
pub fn when(call: c_long, when: &[&[Arg]]) -> Allowed {
    Allowed { call, when: when.iter().map(|all| all.to_vec()).collect() }
}

/// An argument of the type `int`, as a filter sees it.
pub fn int(n: i32) -> u32 {
    n as u32
}

/// The list. `pid`: the process that is to be sealed.
pub fn engine_worker(pid: u32) -> Vec<Allowed> {
    let mut list = vec![
        // ---- descriptors that it has: its clients', its supervisor's, segments, standard error
        always(libc::SYS_read),
        always(libc::SYS_write),
        always(libc::SYS_writev),
        always(libc::SYS_pread64),
        always(libc::SYS_pwrite64),
        always(libc::SYS_recvfrom),
        // connections and segments that the supervisor hands over, and its commands
        always(libc::SYS_recvmsg),
        // to whoever is at the other end; to no address
        when(libc::SYS_sendto, &[&[Arg::Is(4, 0)]]),
        always(libc::SYS_shutdown),
        always(libc::SYS_close),
        // how long a segment is now, without a path
        always(libc::SYS_lseek),
        // whose connection it is
        when(libc::SYS_getsockopt, &[&[Arg::IsInt(1, int(libc::SOL_SOCKET)), Arg::IsInt(2, int(libc::SO_PEERCRED))]]),
        // a copy to see whether there is room for another one, seals of the images, and what std looks at
        when(
            libc::SYS_fcntl,
            &[
                &[Arg::IsInt(1, int(libc::F_DUPFD_CLOEXEC))],
                &[Arg::IsInt(1, int(libc::F_ADD_SEALS))],
                &[Arg::IsInt(1, int(libc::F_GETFD))],
                &[Arg::IsInt(1, int(libc::F_GETFL))],
            ],
        ),
        when(libc::SYS_ioctl, &[&[Arg::IsInt(1, libc::FIONBIO as u32)], &[Arg::IsInt(1, PAGEMAP_SCAN)]]),
        always(libc::SYS_epoll_pwait),
        always(libc::SYS_epoll_ctl),
        always(libc::SYS_ppoll),
        // ---- memory of its own, which is never executed
        when(libc::SYS_mmap, &[&[Arg::Without(2, libc::PROT_EXEC as u64)]]),
        when(libc::SYS_mprotect, &[&[Arg::Without(2, libc::PROT_EXEC as u64)]]),
        always(libc::SYS_munmap),
        always(libc::SYS_mremap),
        always(libc::SYS_brk),
        when(
            libc::SYS_madvise,
            &[
                &[Arg::IsInt(2, int(libc::MADV_DONTNEED))],
                &[Arg::IsInt(2, int(libc::MADV_FREE))],
                // guard pages below the stacks of threads, in newer C libraries
                &[Arg::IsInt(2, 102)],
                &[Arg::IsInt(2, 103)],
            ],
        ),
        // ---- its threads
        always(libc::SYS_futex),
        // a stuck one is replaced
        when(libc::SYS_clone, &[&[Arg::Is(0, THREAD)]]),
        always(libc::SYS_set_robust_list),
        always(libc::SYS_rseq),
        // the calling one gives way to others, and comes back; none but that
        when(libc::SYS_setpriority, &[&[Arg::IsInt(0, libc::PRIO_PROCESS), Arg::IsInt(1, 0)]]),
        always(libc::SYS_sched_getaffinity),
        always(libc::SYS_sched_yield),
        always(libc::SYS_gettid),
        always(libc::SYS_getpid),
        // who may connect beside others
        always(libc::SYS_geteuid),
        when(libc::SYS_prctl, &[&[Arg::IsInt(0, int(libc::PR_SET_NAME))]]),
        always(libc::SYS_exit),
        always(libc::SYS_exit_group),
        // ---- faults of guests, which are signals to the thread that runs one
        always(libc::SYS_rt_sigaction),
        always(libc::SYS_rt_sigprocmask),
        always(libc::SYS_rt_sigreturn),
        always(libc::SYS_sigaltstack),
        when(libc::SYS_tgkill, &[&[Arg::IsInt(0, pid)]]),
        // ---- time and chance
        always(libc::SYS_clock_gettime),
        always(libc::SYS_clock_nanosleep),
        always(libc::SYS_nanosleep),
        // after the process was stopped and goes on
        always(libc::SYS_restart_syscall),
        always(libc::SYS_getrandom),
    ];
    #[cfg(target_arch = "x86_64")]
    list.extend([always(libc::SYS_epoll_wait), always(libc::SYS_poll), always(libc::SYS_time)]);
    list
}
