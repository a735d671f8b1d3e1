//! What a sidecar holds, counted from /proc: the process that clients know, and those that it has made.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// Counts at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeakProbe {
    pub fds: usize,
    pub threads: usize,
    pub maps: usize,
    pub rss_bytes: u64,
}

/// A process and all that it has made, and so on. The first is itself.
pub fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(pid) = family.get(next).copied() {
        next += 1;
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for thread in threads {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            family.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    family
}

/// The process in which guests run: the one that clients know, or the first that it has made of those that are there. The last one
/// stands ready, where there are several.
pub fn of_guests(pid: u32) -> u32 {
    workers_of(pid).first().copied().unwrap_or(pid)
}

/// Those in which guests run, the oldest first. Between fork and exec a child is still a copy of its parent, which waits for that:
/// it is nobody's worker yet.
pub fn workers_of(pid: u32) -> Vec<u32> {
    let own = command_of(pid);
    let is_worker = |made: &u32| {
        let command = command_of(*made);
        *made != pid && command != own && !command.is_empty() && !command.starts_with(COMPILER)
    };
    family(pid).into_iter().filter(is_worker).collect()
}

/// The one that compiles what is kept, if it is there.
pub fn compiler_of(pid: u32) -> Option<u32> {
    family(pid).into_iter().find(|made| command_of(*made).starts_with(COMPILER))
}

const COMPILER: &[u8] = b"nexus-compiler\0";

fn command_of(pid: u32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

/// How nice the threads are that run guests. Source: proc(5), `stat`, of which the 19th field is that one.
pub fn niceness_of_workers(pid: u32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{}/task", of_guests(pid))).expect("a process of ours");
    let niceness = |thread: fs::DirEntry| {
        let (name, niceness) = name_and_niceness(&thread.path().join("stat"))?;
        name.contains("(worker-").then_some(niceness)
    };
    threads.flatten().filter_map(niceness).collect()
}

/// Of this process: what it starts begins with that.
pub fn own_niceness() -> i32 {
    name_and_niceness(Path::new("/proc/self/stat")).expect("a process has a niceness").1
}

fn name_and_niceness(stat: &Path) -> Option<(String, i32)> {
    let stat = fs::read_to_string(stat).ok()?;
    let (name, fields) = stat.rsplit_once(')')?;
    Some((name.to_owned(), fields.split_whitespace().nth(16)?.parse().ok()?))
}

impl LeakProbe {
    /// Of a sidecar.
    pub fn of(pid: u32) -> Self {
        Self::over(&family(pid))
    }

    /// Of one process.
    pub fn of_process(pid: u32) -> Self {
        Self::over(&[pid])
    }

    fn over(family: &[u32]) -> Self {
        let sum = |of: &dyn Fn(u32) -> usize| family.iter().map(|pid| of(*pid)).sum();
        let entries = |dir: &str| sum(&|pid| fs::read_dir(format!("/proc/{pid}/{dir}")).map_or(0, Iterator::count));
        let maps = sum(&|pid| fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default().lines().count());
        Self {
            fds: entries("fd"),
            threads: entries("task"),
            maps,
            rss_bytes: (sum(&|pid| field_kib(pid, "status", "VmRSS:") as usize) as u64) << 10,
        }
    }

    /// The counts that have to come back exactly; RSS is left out, since allocators keep memory.
    pub fn counts(&self) -> (usize, usize) {
        (self.fds, self.threads)
    }
}

/// The counts once they stay the same and no thread has anything to do: connections that were dropped a moment ago are closed
/// by then. A thread that is to close one and gets no time for it on a busy machine is told by the kernel to be running.
pub fn settled_counts(pid: u32) -> (usize, usize) {
    settled(pid, "the counts settle", || LeakProbe::of(pid).counts())
}

/// The memory once it stays the same and no thread has anything to do: what a burst took is given back by then.
pub fn settled_rss_bytes(pid: u32) -> u64 {
    settled(pid, "the memory settles", || LeakProbe::of(pid).rss_bytes)
}

fn settled<T: PartialEq + Copy>(pid: u32, what: &str, read: impl Fn() -> T) -> T {
    let (mut last, mut same) = (read(), 0);
    crate::eventually(what, crate::SOON, || {
        std::thread::sleep(Duration::from_millis(50));
        let (idle, now) = (is_idle(pid) && is_complete(pid), read());
        same = if std::mem::replace(&mut last, now) == now && idle { same + 1 } else { 0 };
        same == 4
    });
    last
}

/// Returns when all processes are there, and have settled, that a sidecar makes by itself: what is measured of it before grows by whole
/// processes.
pub fn until_complete(pid: u32) {
    settled_rss_bytes(pid);
}

/// Whether all processes are there that a sidecar with workers makes by itself: one that stands ready, and one that compiles.
fn is_complete(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let names: Vec<_> =
        threads.map(|thread| fs::read_to_string(thread.path().join("comm")).unwrap_or_default()).collect();
    let has = |name: &str| names.iter().any(|one| one.trim_end() == name);
    !has("door") || workers_of(pid).len() > 1 && (!has("compile") || compiler_of(pid).is_some())
}

/// Whether every thread sleeps at this moment.
fn is_idle(pid: u32) -> bool {
    let tasks = family(pid).into_iter().map(|pid| fs::read_dir(format!("/proc/{pid}/task")));
    let mut threads = tasks.flatten().flatten().flatten();
    threads.all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        !matches!(state(&stat), Some('R' | 'D'))
    })
}

/// In the words of proc(5), `/proc/PID/stat`: the state follows the name, which is in parentheses and may hold anything.
fn state(stat: &str) -> Option<char> {
    stat.rsplit(") ").next()?.chars().next()
}

/// What a thread's stack has taken, at its deepest so far, and what it may take.
#[derive(Clone, Debug)]
pub struct StackUse {
    pub thread: String,
    pub used_bytes: u64,
    pub size_bytes: u64,
}

/// Of every thread; for one that runs, as soon as it waits. A stack's pages stay with it, so those that are there were needed
/// once. Source: proc(5), `task/TID/syscall`: its last two words are the stack pointer and the program counter.
pub fn stack_uses(pid: u32) -> Vec<StackUse> {
    family(pid).into_iter().flat_map(stack_uses_of).collect()
}

fn stack_uses_of(pid: u32) -> Vec<StackUse> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a process of ours");
    let stacks: Vec<_> = threads.filter_map(|thread| stack_pointer(&thread.ok()?.path())).collect();
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("a process of ours");
    let mut mappings: Vec<(u64, u64, u64)> = Vec::new();
    for line in maps.lines() {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        if let Some((from, to)) = range.and_then(|(from, to)| Some((hex(from)?, hex(to)?))) {
            mappings.push((from, to, 0));
        } else if let (Some(kib), Some(last)) = (line.strip_prefix("Rss:"), mappings.last_mut()) {
            last.2 = kib.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10;
        }
    }
    let uses = stacks.into_iter().filter_map(|(thread, pointer)| {
        let (from, to, used_bytes) = *mappings.iter().find(|(from, to, _)| (*from..*to).contains(&pointer))?;
        Some(StackUse { thread, used_bytes, size_bytes: to - from })
    });
    uses.collect()
}

/// A thread's name and where its stack is, once it waits. `None`: it has ended.
fn stack_pointer(thread: &Path) -> Option<(String, u64)> {
    let mut call = String::new();
    crate::eventually("the thread waits", Duration::from_secs(10), || {
        call = fs::read_to_string(thread.join("syscall")).unwrap_or_default();
        call.trim() != "running"
    });
    let pointer = call.split_whitespace().rev().nth(1)?.strip_prefix("0x")?;
    let name = fs::read_to_string(thread.join("comm")).ok()?;
    Some((name.trim().to_owned(), u64::from_str_radix(pointer, 16).ok()?))
}

/// Proportional set size: memory of the process, shared pages divided among those who share them.
pub fn pss_bytes(pid: u32) -> u64 {
    all_kib(pid, "smaps_rollup", "Pss:") << 10
}

/// Memory that is the process's alone and was written to: what it would give back.
pub fn private_bytes(pid: u32) -> u64 {
    all_kib(pid, "smaps_rollup", "Private_Dirty:") << 10
}

/// As [`private_bytes`], of one process.
pub fn private_bytes_of(pid: u32) -> u64 {
    field_kib(pid, "smaps_rollup", "Private_Dirty:") << 10
}

/// The most that the process had at once since its start, or since it was forgotten.
pub fn peak_rss_bytes(pid: u32) -> u64 {
    all_kib(pid, "status", "VmHWM:") << 10
}

/// Begins a new peak at what the process has now.
pub fn forget_peak_rss(pid: u32) {
    for pid in family(pid) {
        fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("a process of ours");
    }
}

/// Of a sidecar.
fn all_kib(pid: u32, file: &str, field: &str) -> u64 {
    family(pid).into_iter().map(|pid| field_kib(pid, file, field)).sum()
}

fn field_kib(pid: u32, file: &str, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Segments of shared memory that a sidecar made and that have their names.
pub fn names_in_shm(pid: u32) -> usize {
    let prefix = format!("nexus-sidecar.{pid}.");
    let names = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    names.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)).count()
}

/// CPU time that a sidecar has used, in hundredths of a second: proc(5), the 14th and 15th field.
pub fn cpu_ticks(pid: u32) -> u64 {
    let ticks = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        number(11) + number(12)
    };
    family(pid).into_iter().map(ticks).sum()
}

/// Whether the process runs. A zombie does not.
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state(&stat).is_some_and(|state| state != 'Z' && state != 'X')
}
