//! Faults on purpose, for tests. Only with the cargo feature `faults`, which nothing that is shipped is built with; without it
//! every call here is nothing.
//!
//! The variable `NEXUS_FAULTS` holds the plan: `POINT:ACTION` or `POINT:ACTION@N`, joined by commas. With `@N` the N-th
//! passage of the point (from 1) does it, without it every one. Actions:
//!
//! | action | what happens to whoever passes the point |
//! | --- | --- |
//! | `hang` | it never goes on |
//! | `sleep=MS` | it goes on later |
//! | `panic` | it panics |
//! | `error=ERRNO` | the operation fails with that number (only at points that are passed with [`io`]) |
//!
//! A new point is a line in `POINTS`, a variant of [`Point`], and a `faults::pass(Point::X)` or `faults::io(Point::X)?` at
//! the place.

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
    /// Taking the memory of a run away.
    Kill,
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

    /// What is planned, in words.
    pub fn planned() -> Option<String> {
        None
    }
}

#[cfg(feature = "faults")]
mod plan {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::Point;

    const POINTS: [(&str, Point); 5] = [
        ("host-call", Point::HostCall),
        ("worker", Point::Worker),
        ("poll", Point::Poll),
        ("watchdog", Point::Watchdog),
        ("kill", Point::Kill),
    ];

    #[derive(Clone, Copy, Debug)]
    enum Action {
        Hang,
        Sleep(Duration),
        Panic,
        Error(i32),
    }

    #[derive(Debug)]
    struct Entry {
        point: Point,
        action: Action,
        /// None: every passage.
        only: Option<u64>,
        passed: AtomicU64,
    }

    fn plan() -> &'static [Entry] {
        static PLAN: OnceLock<Vec<Entry>> = OnceLock::new();
        PLAN.get_or_init(|| {
            let text = std::env::var("NEXUS_FAULTS").unwrap_or_default();
            let entries = text.split(',').filter(|entry| !entry.is_empty());
            entries.map(|entry| parse(entry).unwrap_or_else(|| bad(entry))).collect()
        })
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
            Some(("sleep", ms)) => Action::Sleep(Duration::from_millis(ms.parse().ok()?)),
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
        for entry in plan().iter().filter(|entry| entry.point == point) {
            let n = entry.passed.fetch_add(1, Ordering::Relaxed) + 1;
            if entry.only.is_some_and(|only| only != n) {
                continue;
            }
            match entry.action {
                Action::Hang => loop {
                    std::thread::sleep(Duration::from_secs(3600));
                },
                Action::Sleep(time) => std::thread::sleep(time),
                Action::Panic => panic!("planned by NEXUS_FAULTS at {point:?}"),
                Action::Error(errno) => return Err(std::io::Error::from_raw_os_error(errno)),
            }
        }
        Ok(())
    }

    /// What is planned, in words.
    pub fn planned() -> Option<String> {
        (!plan().is_empty()).then(|| format!("{:?}", plan()))
    }
}

pub use plan::{io, pass, planned};
