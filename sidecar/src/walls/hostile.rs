//! What native code that has taken an engine worker over would try: for tests, in the build with faults alone.
//!
//! Each attempt is one system call with the arguments of somebody who means it, made by a thread that runs requests, after the
//! seal. It is refused with an error, or ends the process; whether one got through is a line on standard error.

use std::io;

use libc::{AT_FDCWD, c_long};

/// An argument of a call.
#[derive(Clone, Copy, Debug)]
enum Of {
    Number(i64),
    Text(&'static std::ffi::CStr),
    /// Memory that the kernel may write to, with zeros in it.
    Room,
    /// Memory of this process that can be changed, whole pages of it.
    Pages,
    /// The address of a Unix socket: the file of a path, or an abstract name.
    Address(&'static [u8]),
    Supervisor,
    /// A descriptor that is there.
    Descriptor,
}

use Of::{Address, Descriptor, Number as N, Pages, Room, Supervisor, Text};

const ROOM_BYTES: usize = 65536;

struct Attempt {
    name: &'static str,
    call: c_long,
    with: &'static [Of],
}

const fn attempt(name: &'static str, call: c_long, with: &'static [Of]) -> Attempt {
    Attempt { name, call, with }
}

const HERE: Of = N(AT_FDCWD as i64);
const READ_WRITE: i64 = (libc::PROT_READ | libc::PROT_WRITE) as i64;
const EXEC: i64 = (libc::PROT_READ | libc::PROT_EXEC) as i64;
const ANONYMOUS: i64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as i64;
const STREAM: i64 = libc::SOCK_STREAM as i64;
const DATAGRAM: i64 = libc::SOCK_DGRAM as i64;
const UNIX: i64 = libc::AF_UNIX as i64;
const INTERNET: i64 = libc::AF_INET as i64;
/// The line to the supervisor, which every worker has.
const LINE: i64 = 3;

static ATTEMPTS: &[Attempt] = &[
    // ---- files
    attempt("open-passwd", libc::SYS_openat, &[HERE, Text(c"/etc/passwd"), N(0), N(0)]),
    attempt("open-own-memory", libc::SYS_openat, &[HERE, Text(c"/proc/self/mem"), N(2), N(0)]),
    attempt("open-own-maps", libc::SYS_openat, &[HERE, Text(c"/proc/self/maps"), N(0), N(0)]),
    attempt("open-root", libc::SYS_openat, &[HERE, Text(c"/"), N(libc::O_DIRECTORY as i64), N(0)]),
    attempt("open-shm", libc::SYS_openat, &[HERE, Text(c"/dev/shm"), N(libc::O_DIRECTORY as i64), N(0)]),
    attempt("make-in-shm", libc::SYS_openat, &[HERE, Text(c"/dev/shm/nexus-escape"), N(0o102), N(0o600)]),
    attempt("open-by-descriptor", libc::SYS_openat, &[HERE, Text(c"/proc/self/fd/2"), N(1), N(0)]),
    attempt("openat2", libc::SYS_openat2, &[HERE, Text(c"/etc/passwd"), Room, N(24)]),
    attempt("creat", libc::SYS_openat, &[HERE, Text(c"/tmp/nexus-escape"), N(0o102), N(0o600)]),
    attempt("stat", libc::SYS_newfstatat, &[HERE, Text(c"/etc/passwd"), Room, N(0)]),
    attempt("statx", libc::SYS_statx, &[HERE, Text(c"/etc/passwd"), N(0), N(0x7ff), Room]),
    attempt("access", libc::SYS_faccessat, &[HERE, Text(c"/etc/passwd"), N(4)]),
    attempt("readlink", libc::SYS_readlinkat, &[HERE, Text(c"/proc/self/exe"), Room, N(4096)]),
    attempt("unlink", libc::SYS_unlinkat, &[HERE, Text(c"/tmp/nexus-escape"), N(0)]),
    attempt("mkdir", libc::SYS_mkdirat, &[HERE, Text(c"/tmp/nexus-escape"), N(0o700)]),
    attempt("rename", libc::SYS_renameat2, &[HERE, Text(c"/tmp/nexus-a"), HERE, Text(c"/tmp/nexus-b"), N(0)]),
    attempt("link", libc::SYS_linkat, &[HERE, Text(c"/etc/passwd"), HERE, Text(c"/tmp/nexus-escape"), N(0)]),
    attempt("symlink", libc::SYS_symlinkat, &[Text(c"/etc/passwd"), HERE, Text(c"/tmp/nexus-escape")]),
    attempt("mknod", libc::SYS_mknodat, &[HERE, Text(c"/tmp/nexus-escape"), N(0o10600), N(0)]),
    attempt("chdir", libc::SYS_chdir, &[Text(c"/tmp")]),
    attempt("truncate", libc::SYS_truncate, &[Text(c"/tmp/nexus-escape"), N(0)]),
    attempt("inotify", libc::SYS_inotify_init1, &[N(0)]),
    attempt("memory-file", libc::SYS_memfd_create, &[Text(c"escape"), N(0)]),
    // ---- sockets
    attempt("socket-internet", libc::SYS_socket, &[N(INTERNET), N(STREAM), N(0)]),
    attempt("socket-internet-datagram", libc::SYS_socket, &[N(INTERNET), N(DATAGRAM), N(0)]),
    attempt("socket-unix", libc::SYS_socket, &[N(UNIX), N(STREAM), N(0)]),
    attempt("socket-unix-datagram", libc::SYS_socket, &[N(UNIX), N(DATAGRAM), N(0)]),
    attempt("socket-netlink", libc::SYS_socket, &[N(libc::AF_NETLINK as i64), N(libc::SOCK_RAW as i64), N(0)]),
    attempt("socket-pair", libc::SYS_socketpair, &[N(UNIX), N(STREAM), N(0), Room]),
    attempt("connect-path", libc::SYS_connect, &[N(LINE), Address(b"\x01\x00/run/systemd/notify\0"), N(22)]),
    attempt("connect-abstract", libc::SYS_connect, &[N(LINE), Address(b"\x01\x00\0nexus"), N(8)]),
    attempt("bind", libc::SYS_bind, &[N(LINE), Address(b"\x01\x00\0nexus"), N(8)]),
    attempt("listen", libc::SYS_listen, &[N(LINE), N(1)]),
    attempt("accept", libc::SYS_accept4, &[N(LINE), N(0), N(0), N(0)]),
    attempt("send-to-address", libc::SYS_sendto, &[N(LINE), Room, N(1), N(0), Address(b"\x01\x00\0nexus"), N(8)]),
    attempt("send-descriptors", libc::SYS_sendmsg, &[N(LINE), Room, N(0)]),
    attempt("socket-option", libc::SYS_setsockopt, &[N(LINE), N(1), N(7), Room, N(4)]),
    // ---- other processes
    attempt("kill-supervisor", libc::SYS_kill, &[Supervisor, N(0)]),
    attempt("kill-all", libc::SYS_kill, &[N(-1), N(0)]),
    attempt("kill-group", libc::SYS_kill, &[N(0), N(0)]),
    attempt("signal-thread-of-supervisor", libc::SYS_tgkill, &[Supervisor, Supervisor, N(0)]),
    attempt("tkill", libc::SYS_tkill, &[Supervisor, N(0)]),
    attempt("queue-signal", libc::SYS_rt_sigqueueinfo, &[Supervisor, N(0), Room]),
    attempt("trace", libc::SYS_ptrace, &[N(libc::PTRACE_ATTACH as i64), Supervisor, N(0), N(0)]),
    attempt("read-memory", libc::SYS_process_vm_readv, &[Supervisor, Room, N(1), Room, N(1), N(0)]),
    attempt("write-memory", libc::SYS_process_vm_writev, &[Supervisor, Room, N(1), Room, N(1), N(0)]),
    attempt("open-process", libc::SYS_pidfd_open, &[Supervisor, N(0)]),
    attempt("take-descriptor", libc::SYS_pidfd_getfd, &[N(LINE), N(0), N(0)]),
    attempt("limits-of-supervisor", libc::SYS_prlimit64, &[Supervisor, N(7), N(0), Room]),
    attempt("priority", libc::SYS_setpriority, &[N(0), Supervisor, N(0)]),
    attempt("compare", libc::SYS_kcmp, &[Supervisor, Supervisor, N(0), N(0), N(0)]),
    // ---- more processes
    attempt("fork", libc::SYS_clone, &[N(libc::SIGCHLD as i64), N(0), N(0), N(0), N(0)]),
    attempt("fork-by-structure", libc::SYS_clone3, &[Room, N(64)]),
    attempt("exec", libc::SYS_execve, &[Text(c"/bin/true"), N(0), N(0)]),
    attempt("exec-descriptor", libc::SYS_execveat, &[Descriptor, Text(c""), N(0), N(0), N(libc::AT_EMPTY_PATH as i64)]),
    attempt("wait", libc::SYS_wait4, &[N(-1), N(0), N(1), N(0)]),
    // ---- memory that is executed
    attempt("map-executable", libc::SYS_mmap, &[N(0), N(4096), N(EXEC), N(ANONYMOUS), N(-1), N(0)]),
    attempt("map-all", libc::SYS_mmap, &[N(0), N(4096), N(READ_WRITE | EXEC), N(ANONYMOUS), N(-1), N(0)]),
    attempt("make-executable", libc::SYS_mprotect, &[Pages, N(4096), N(EXEC)]),
    attempt("make-executable-by-key", libc::SYS_pkey_mprotect, &[Pages, N(4096), N(EXEC), N(-1)]),
    attempt("shared-memory", libc::SYS_shmget, &[N(0), N(4096), N(0o1700)]),
    attempt("attach-executable", libc::SYS_shmat, &[N(0), N(0), N(0o100_000)]),
    attempt("poison", libc::SYS_madvise, &[Pages, N(4096), N(100)]),
    attempt("handle-faults", libc::SYS_userfaultfd, &[N(0)]),
    // ---- the kernel
    attempt("io-uring", libc::SYS_io_uring_setup, &[N(1), Room]),
    attempt("bpf", libc::SYS_bpf, &[N(0), Room, N(64)]),
    attempt("perf", libc::SYS_perf_event_open, &[Room, N(0), N(-1), N(-1), N(0)]),
    attempt("keys", libc::SYS_keyctl, &[N(0), N(-3), N(0)]),
    attempt("namespace", libc::SYS_unshare, &[N(libc::CLONE_NEWUSER as i64)]),
    attempt("enter-namespace", libc::SYS_setns, &[N(LINE), N(0)]),
    attempt("mount", libc::SYS_mount, &[Text(c"none"), Text(c"/tmp"), Text(c"tmpfs"), N(0), N(0)]),
    attempt("chroot", libc::SYS_chroot, &[Text(c"/tmp")]),
    attempt("module", libc::SYS_finit_module, &[N(LINE), Text(c""), N(0)]),
    attempt("user", libc::SYS_setuid, &[N(0)]),
    attempt("capabilities", libc::SYS_capset, &[Room, Room]),
    attempt("dumpable-again", libc::SYS_prctl, &[N(libc::PR_SET_DUMPABLE as i64), N(1), N(0), N(0), N(0)]),
    attempt("no-death-signal", libc::SYS_prctl, &[N(libc::PR_SET_PDEATHSIG as i64), N(0), N(0), N(0), N(0)]),
    attempt("another-filter", libc::SYS_seccomp, &[N(1), N(0), Room]),
    attempt("terminal-input", libc::SYS_ioctl, &[N(2), N(libc::TIOCSTI as i64), Room]),
    attempt("owner-of-signals", libc::SYS_fcntl, &[N(LINE), N(libc::F_SETOWN as i64), Supervisor]),
    attempt("limits", libc::SYS_prlimit64, &[N(0), N(7), Room, N(0)]),
    attempt("timer", libc::SYS_timer_create, &[N(0), N(0), Room]),
];

/// The names of all.
pub fn names() -> impl Iterator<Item = &'static str> {
    ATTEMPTS.iter().map(|attempt| attempt.name)
}

/// Tries it. None: there is no attempt of that name. It may not return.
pub fn attempt_by_name(name: &str) -> Option<Result<i64, io::Error>> {
    let attempt = ATTEMPTS.iter().find(|attempt| attempt.name == name)?;
    let mut room: Vec<Vec<u64>> = Vec::new();
    let mut arguments = [0; 6];
    for (place, of) in arguments.iter_mut().zip(attempt.with) {
        *place = match *of {
            N(number) => number,
            Text(text) => text.as_ptr().addr() as i64,
            Address(bytes) => bytes.as_ptr().addr() as i64,
            Supervisor => i64::from(nix::unistd::getppid().as_raw()),
            Descriptor => LINE,
            Room | Pages => {
                let mut memory = vec![0_u64; ROOM_BYTES / 8];
                let start = memory.as_mut_ptr().addr() as i64;
                room.push(memory);
                if matches!(of, Pages) { (start + 4095) & !4095 } else { start }
            }
        };
    }
    // memory that a call may write to is `room`, which is larger than what any of them writes; a child of `fork` ends below
    let got = crate::os::any_call(attempt.call, arguments);
    if got == 0 && matches!(attempt.call, libc::SYS_clone | libc::SYS_clone3) {
        crate::os::exit_now(0);
    }
    Some(if got < 0 { Err(io::Error::last_os_error()) } else { Ok(got) })
}
