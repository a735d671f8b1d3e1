//! Faults on purpose, for tests. Only with the cargo feature `faults`, which nothing that is shipped is built with; without it
//! every call here is nothing.
//!
//! The variable `NEXUS_FAULTS` holds the plan: `POINT:ACTION` or `POINT:ACTION@N`, joined by commas. With `@N` the N-th
//! passage of the point (from 1) does it, without it every one. `file=PATH` instead: the plan is what that file holds at each
//! passage; a text that differs from the last one counts from 1 again (a word that begins with # is nothing but a difference).
//! Every fault that happens is a line on standard error: `NEXUS_FAULTS: POINT does ACTION`. Actions:
//!
//! | action | what happens to whoever passes the point |
//! | --- | --- |
//! | `hang` | it never goes on |
//! | `sleep=MS` | it goes on later |
//! | `panic` | it panics |
//! | `error=ERRNO` | the operation fails with that number (only at points that are passed with [`io`] or [`transfer`]) |
//! | `escape=NAME` | it tries what native code would that has taken the process over: see `walls/hostile.rs`; the line says what came of it |
//! | `short` | one byte is read or written instead of many (only at points that are passed with [`transfer`]) |
//!
//! A new point is a line in `POINTS`, a variant of [`Point`], and a `faults::pass(Point::X)` or `faults::io(Point::X)?` at
//! the place.

/// Where the plan is. Without the feature nothing reads it.
pub const VARIABLE: &str = "NEXUS_FAULTS";

/// A place that a plan can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Inside of every host call, after the gate.
    HostCall,
    /// A worker that has taken a request.
    Worker,
    /// A worker that has the poller and handles what it found.
    Poll,
    /// A look of the watchdog.
    Watchdog,
    /// The housekeeper, with everything that it has to do.
    Housework,
    /// Whoever has just got the books of the server.
    Books,
    /// Taking the memory of a run away.
    Kill,
    /// Taking a connection.
    Accept,
    /// Waiting for the connections.
    Wait,
    /// Reading from a connection, and writing to one.
    Read,
    Write,
    /// The files of the compile cache.
    CacheOpen,
    CacheRead,
    CacheCreate,
    CacheWrite,
    CacheSync,
    CacheRename,
    /// Mapping the image into a new instance.
    Map,
    /// Giving pages back when an instance is reset.
    Discard,
    /// Giving access back to the memory of a killed run.
    Restore,
    /// Opening the page map, and finding the pages of a suspended guest.
    PageMap,
    Pages,
    MemoryFile,
    Random,
    Thread,
    /// Making a segment, and reading and writing it.
    Segment,
    SegmentRead,
    SegmentWrite,
    /// Asking the kernel to let no descriptors come along.
    Rights,
    /// Putting up a wall around guests.
    Wall,
}

#[cfg(not(feature = "faults"))]
mod plan {
    use super::Point;

    /// See the module.
    #[inline(always)]
    pub fn pass(_: Point) {}

    /// See the module.
    #[inline(always)]
    pub fn io(_: Point) -> std::io::Result<()> {
        Ok(())
    }

    /// See the module.
    #[inline(always)]
    pub fn transfer(_: Point, len: usize) -> std::io::Result<usize> {
        Ok(len)
    }

    /// What is planned, in words.
    pub fn planned() -> Option<String> {
        None
    }
}

#[cfg(feature = "faults")]
mod plan {
    use std::io::Write;
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex, OnceLock, PoisonError};
    use std::time::Duration;

    use super::Point;
    use crate::walls::hostile;

    const POINTS: [(&str, Point); 30] = [
        ("host-call", Point::HostCall),
        ("worker", Point::Worker),
        ("poll", Point::Poll),
        ("watchdog", Point::Watchdog),
        ("housework", Point::Housework),
        ("books", Point::Books),
        ("kill", Point::Kill),
        ("accept", Point::Accept),
        ("wait", Point::Wait),
        ("read", Point::Read),
        ("write", Point::Write),
        ("cache-open", Point::CacheOpen),
        ("cache-read", Point::CacheRead),
        ("cache-create", Point::CacheCreate),
        ("cache-write", Point::CacheWrite),
        ("cache-sync", Point::CacheSync),
        ("cache-rename", Point::CacheRename),
        ("map", Point::Map),
        ("discard", Point::Discard),
        ("restore", Point::Restore),
        ("page-map", Point::PageMap),
        ("pages", Point::Pages),
        ("memory-file", Point::MemoryFile),
        ("random", Point::Random),
        ("thread", Point::Thread),
        ("segment", Point::Segment),
        ("segment-read", Point::SegmentRead),
        ("segment-write", Point::SegmentWrite),
        ("rights", Point::Rights),
        ("wall", Point::Wall),
    ];

    #[derive(Clone, Copy, Debug)]
    enum Action {
        Hang,
        Sleep(Duration),
        Panic,
        Error(i32),
        Short,
        Escape(&'static str),
    }

    #[derive(Debug)]
    struct Entry {
        point: Point,
        action: Action,
        /// None: every passage.
        only: Option<u64>,
        passed: AtomicU64,
    }

    type Plan = Arc<Vec<Entry>>;

    fn plan() -> Plan {
        static VARIABLE: OnceLock<String> = OnceLock::new();
        static PLAN: Mutex<Option<(String, Plan)>> = Mutex::new(None);
        let variable = VARIABLE.get_or_init(|| std::env::var(super::VARIABLE).unwrap_or_default());
        let mut last = PLAN.lock().unwrap_or_else(PoisonError::into_inner);
        // under the lock: an older text must not come after a newer one
        let text = match variable.strip_prefix("file=") {
            Some(path) => &read_again(path),
            None => variable,
        };
        match &*last {
            Some((known, plan)) if known == text => plan.clone(),
            _ => {
                let entries = text.trim().split(',').filter(|entry| !entry.is_empty() && !entry.starts_with('#'));
                let plan = Plan::new(entries.map(|entry| parse(entry).unwrap_or_else(|| bad(entry))).collect());
                *last = Some((text.clone(), plan.clone()));
                plan
            }
        }
    }

    /// In one piece: another process may write there, too.
    fn say(what: &str) {
        let _ = std::io::stderr().write_all(format!("NEXUS_FAULTS: {what}\n").as_bytes());
    }

    /// What the file holds now. It is opened once: later, this process may open none.
    fn read_again(path: &str) -> String {
        static FILE: OnceLock<Option<std::fs::File>> = OnceLock::new();
        let file = FILE.get_or_init(|| std::fs::File::open(path).ok());
        let (mut text, mut at) = (Vec::new(), 0);
        let mut block = [0; 4096];
        while let Some(Ok(n @ 1..)) = file.as_ref().map(|file| file.read_at(&mut block, at)) {
            text.extend_from_slice(&block[..n]);
            at += n as u64;
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// A test that plans something else than it means proves nothing.
    fn bad(entry: &str) -> ! {
        eprintln!("NEXUS_FAULTS: {entry:?} is not POINT:ACTION or POINT:ACTION@N");
        std::process::exit(2)
    }

    fn parse(entry: &str) -> Option<Entry> {
        let (name, rest) = entry.split_once(':')?;
        let (action, only) = match rest.split_once('@') {
            Some((action, n)) => (action, Some(n.parse().ok()?)),
            None => (rest, None),
        };
        let point = POINTS.iter().find(|(known, _)| *known == name)?.1;
        let action = match action.split_once('=') {
            None if action == "hang" => Action::Hang,
            None if action == "panic" => Action::Panic,
            None if action == "short" => Action::Short,
            Some(("sleep", ms)) => Action::Sleep(Duration::from_millis(ms.parse().ok()?)),
            Some(("escape", name)) => Action::Escape(hostile::names().find(|known| *known == name)?),
            Some(("error", errno)) => Action::Error(errno.parse().ok()?),
            _ => return None,
        };
        Some(Entry { point, action, only, passed: AtomicU64::new(0) })
    }

    /// See the module.
    pub fn pass(point: Point) {
        let _ = io(point);
    }

    /// See the module.
    pub fn io(point: Point) -> std::io::Result<()> {
        transfer(point, 0).map(drop)
    }

    /// See the module. How many of `len` bytes may be moved.
    pub fn transfer(point: Point, mut len: usize) -> std::io::Result<usize> {
        for entry in plan().iter().filter(|entry| entry.point == point) {
            let n = entry.passed.fetch_add(1, Ordering::Relaxed) + 1;
            if entry.only.is_some_and(|only| only != n) {
                continue;
            }
            let name = POINTS.iter().find(|(_, known)| *known == point).map_or("", |(name, _)| name);
            say(&format!("{name} does {:?}", entry.action));
            match entry.action {
                Action::Hang => loop {
                    std::thread::sleep(Duration::from_secs(3600));
                },
                Action::Sleep(time) => std::thread::sleep(time),
                Action::Panic => panic!("planned by NEXUS_FAULTS at {point:?}"),
                Action::Error(errno) => return Err(std::io::Error::from_raw_os_error(errno)),
                Action::Short => len = len.min(1),
                Action::Escape(name) => match hostile::attempt_by_name(name) {
                    Some(Ok(got)) => say(&format!("{name} got through: {got}")),
                    Some(Err(e)) => say(&format!("{name} is refused: {e}")),
                    None => say(&format!("there is no {name}")),
                },
            }
        }
        Ok(len)
    }

    /// What is planned, in words.
    pub fn planned() -> Option<String> {
        (!plan().is_empty()).then(|| format!("{:?}", plan()))
    }
}

pub use plan::{io, pass, planned, transfer};
