//! One thread that looks at every run: deadlines, cancellations, kills, and whatever else has to happen in time.
//!
//! It ticks while something runs and for a moment after, looks now and then while something waits for its time, and sleeps
//! otherwise: a run that starts while it sleeps wakes it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::control::RunControl;
use crate::exit::ExitCode;
use crate::faults::{self, Point};

/// Time between two looks.
pub const TICK: Duration = Duration::from_millis(1);
/// Time between two looks when nothing runs, but something waits for its time.
const SLOW_TICK: Duration = Duration::from_millis(20);
/// Time between two looks when there is nothing to look at: a thread that is stuck without a run is found as well.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Looks without anything running before it sleeps.
const IDLE_TICKS: u32 = 200;

/// How soon the watchdog has to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vigilance {
    /// Not before it is notified.
    None,
    /// Something waits, but nothing runs.
    Slow,
    /// Something runs.
    Full,
}

/// Called at each look; says how soon the next one is needed.
pub type TickHook = Box<dyn Fn(Instant) -> Vigilance + Send + Sync>;

struct Inner {
    controls: Mutex<Vec<Weak<RunControl>>>,
    hook: Mutex<Option<TickHook>>,
    asleep: AtomicBool,
    stop: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

/// Handle to the thread; dropping it ends the thread.
pub struct Watchdog {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    pub fn start() -> std::io::Result<Self> {
        let inner = Arc::new(Inner {
            controls: Mutex::new(Vec::new()),
            hook: Mutex::new(None),
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        let own = inner.clone();
        let life = move || {
            // without this thread no run would ever be stopped
            if catch_unwind(AssertUnwindSafe(|| own.run())).is_err() {
                log::error!("the watchdog panicked: the process ends with exit code {}", ExitCode::Stuck as u8);
                crate::os::exit_now(ExitCode::Stuck as u8);
            }
        };
        faults::io(Point::Thread)?;
        let thread = std::thread::Builder::new().name("watchdog".into()).spawn(life)?;
        Ok(Self { inner, thread: Some(thread) })
    }

    /// Looks after a run control until it is dropped.
    pub fn watch(&self, control: &Arc<RunControl>) {
        self.inner.controls.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(control));
    }

    /// Whether something runs that should have been stopped `by` ago.
    pub fn has_overdue(&self, now: Instant, by: Duration) -> bool {
        let controls = self.inner.controls.lock().unwrap_or_else(PoisonError::into_inner);
        controls.iter().any(|control| control.upgrade().is_some_and(|control| control.is_overdue(now, by)))
    }

    pub fn set_hook(&self, hook: TickHook) {
        *self.inner.hook.lock().unwrap_or_else(PoisonError::into_inner) = Some(hook);
    }

    /// A run begins, or a deadline was moved. Costs one load when the thread is ticking.
    pub fn notify(&self) {
        if self.inner.asleep.load(Ordering::SeqCst) {
            let _guard = self.inner.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.inner.wake.notify_one();
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.inner.stop.store(true, Ordering::SeqCst);
        {
            let _guard = self.inner.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.inner.wake.notify_one();
        }
        // the hook may be the last that has the server, and the server has the engine: then this is the watchdog's own thread
        let own = |thread: &JoinHandle<()>| thread.thread().id() == std::thread::current().id();
        if let Some(thread) = self.thread.take().filter(|thread| !own(thread)) {
            let _ = thread.join();
        }
    }
}

impl Inner {
    fn run(&self) {
        let mut idle = 0;
        while !self.stop.load(Ordering::SeqCst) {
            if self.patrol(Instant::now()) == Vigilance::Full {
                idle = 0;
            } else {
                idle += 1;
            }
            if idle < IDLE_TICKS {
                std::thread::sleep(TICK);
                continue;
            }
            idle = IDLE_TICKS;
            let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.asleep.store(true, Ordering::SeqCst);
            // what began before `asleep` was visible is seen here; what begins after notifies
            let vigilance = self.patrol(Instant::now());
            if vigilance != Vigilance::Full && !self.stop.load(Ordering::SeqCst) {
                let timeout = if vigilance == Vigilance::Slow { SLOW_TICK } else { HEARTBEAT };
                let (guard, waited) = self.wake.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner);
                drop(guard);
                if !waited.timed_out() {
                    idle = 0;
                }
            } else {
                idle = 0;
            }
            self.asleep.store(false, Ordering::SeqCst);
        }
    }

    fn patrol(&self, now: Instant) -> Vigilance {
        let mut vigilance = Vigilance::None;
        self.controls.lock().unwrap_or_else(PoisonError::into_inner).retain(|control| match control.upgrade() {
            Some(control) => {
                if control.patrol(now) {
                    vigilance = Vigilance::Full;
                }
                true
            }
            None => false,
        });
        match &*self.hook.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(hook) => vigilance.max(hook(now)),
            None => vigilance,
        }
    }
}
