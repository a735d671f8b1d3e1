//! What a worker that compiles may ask the kernel for, once it is sealed: a list, with a reason for each line.
//!
//! It has fewer descriptors than one with clients, makes no thread, and waits for one stream. What is not in the list ends the process.

use super::policy::{Allowed, Arg, always, int, when};
use crate::os::PAGEMAP_SCAN;

/// The list. `pid`: the process that is to be sealed.
pub fn compile_worker(pid: u32) -> Vec<Allowed> {
    let mut list = vec![
        // ---- descriptors that it has: sources, its supervisor's, standard error
        always(libc::SYS_read),
        always(libc::SYS_write),
        always(libc::SYS_writev),
        always(libc::SYS_recvfrom),
        // its supervisor's commands
        always(libc::SYS_recvmsg),
        // to whoever is at the other end; to no address
        when(libc::SYS_sendto, &[&[Arg::Is(4, 0)]]),
        always(libc::SYS_close),
        // what std looks at
        when(libc::SYS_fcntl, &[&[Arg::IsInt(1, int(libc::F_GETFD))], &[Arg::IsInt(1, int(libc::F_GETFL))]]),
        when(libc::SYS_ioctl, &[&[Arg::IsInt(1, PAGEMAP_SCAN)]]),
        always(libc::SYS_ppoll),
        // ---- memory of its own, which is never executed
        when(libc::SYS_mmap, &[&[Arg::Without(2, libc::PROT_EXEC as u64)]]),
        when(libc::SYS_mprotect, &[&[Arg::Without(2, libc::PROT_EXEC as u64)]]),
        always(libc::SYS_munmap),
        always(libc::SYS_mremap),
        always(libc::SYS_brk),
        when(libc::SYS_madvise, &[&[Arg::IsInt(2, int(libc::MADV_DONTNEED))], &[Arg::IsInt(2, int(libc::MADV_FREE))]]),
        // ---- its threads, all of which are there
        always(libc::SYS_futex),
        always(libc::SYS_set_robust_list),
        always(libc::SYS_rseq),
        always(libc::SYS_sched_getaffinity),
        always(libc::SYS_sched_yield),
        always(libc::SYS_gettid),
        always(libc::SYS_getpid),
        when(libc::SYS_prctl, &[&[Arg::IsInt(0, int(libc::PR_SET_NAME))]]),
        always(libc::SYS_exit),
        always(libc::SYS_exit_group),
        // ---- faults of the guest, which are signals to the thread that runs it
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
    list.extend([always(libc::SYS_poll), always(libc::SYS_time)]);
    // the file that a plan of faults is in
    #[cfg(feature = "faults")]
    list.push(always(libc::SYS_pread64));
    list
}
