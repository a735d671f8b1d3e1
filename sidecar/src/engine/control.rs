//! Who may touch a guest's memory when: the hand-over between the thread that runs it and the watchdog.
//!
//! ```text
//!            begin            enter_host
//!   Idle ------------> Running <--------> Host          (the running thread)
//!    ^                 |  ^   |
//!    +------- end -----+  |   | watchdog: only from Running
//!                         v   v
//!                       Watchdog ----> Killed --> Gone  (the watchdog thread; memory is gone for good)
//! ```
//!
//! The watchdog first sets the interrupt word, which QuickJS polls, and after a grace period takes the memory away, which
//! stops native code anywhere. It never does so while the guest is inside a host call: a fault there would be in Rust code.
//! A guest that makes one host call after the other is hardly ever found outside of one, so each call looks for itself
//! whether the run is due: the first one then is refused, and after the grace period it traps.
//! Whoever owns the running thread asks `due_for` whether both steps were in vain, and gives the thread up.
//!
//! A control belongs to an instance and outlives any run on it, so whoever wants to stop something says what: `arm` begins
//! a run and gives a [`Ticket`] for it, and a ticket of an earlier run does nothing. All that is decided about a run stands
//! in one word together with the number of the run, and of the entry into the guest that is going on. Every change compares
//! the whole word. So what was decided by looking at one run never happens to the next one.

use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(feature = "model")]
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(not(feature = "model"))]
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nexus_protocol::limits::KILL_GRACE_MS;

use super::ffi::LinearMemory;
use crate::faults::{self, Point};
pub use crate::token::StopCause;

const KILL_GRACE_MICROS: u64 = KILL_GRACE_MS * 1000;

/// How a stopped run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nobody interfered, or the interrupt word was enough: the memory is as the guest left it.
    Intact(Option<StopCause>),
    /// The memory was taken away: the instance can only be dropped.
    Killed(StopCause),
    /// A host call was begun and never left: a fault in it became a trap of the guest.
    Abandoned,
}

/// One run on a control: what was armed once. Of an earlier run it does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub(crate) u64);

/// What the books of a server need of a control.
pub trait Control: std::fmt::Debug + Send + Sync {
    /// As [`RunControl::arm`].
    fn arm(&self) -> Ticket;
    /// As [`RunControl::stop`].
    fn stop(&self, ticket: Ticket, cause: StopCause) -> bool;
    /// As [`RunControl::give_up`].
    fn give_up(&self, ticket: Ticket) -> bool;
    /// As [`RunControl::due_for`].
    fn due_for(&self, ticket: Ticket, now: Instant) -> Option<(StopCause, Duration)>;
    /// As [`RunControl::forgive`].
    fn forgive(&self, now: Instant);
    /// As [`RunControl::resident_bytes`].
    fn resident_bytes(&self) -> Option<u64>;
}

/// The memory of a guest, as far as the watchdog touches it.
pub trait Stoppable: Send + Sync {
    /// Sets the word that QuickJS polls.
    fn interrupt(&self, at: u32);
    /// Takes the memory away.
    fn revoke(&self) -> std::io::Result<()>;
    /// What of it is resident.
    fn resident_bytes(&self) -> Option<u64>;
}

impl Stoppable for LinearMemory {
    fn interrupt(&self, at: u32) {
        let _ = self.store_u32(at, 1);
    }

    fn revoke(&self) -> std::io::Result<()> {
        Self::revoke(self)
    }

    fn resident_bytes(&self) -> Option<u64> {
        Self::resident_bytes(self)
    }
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
enum State {
    Idle = 0,
    Running = 1,
    Host = 2,
    Watchdog = 3,
    Killed = 4,
    Gone = 5,
}

/// Whose the outcome of a run is: decided once, by whoever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
enum Fate {
    Open = 0,
    Claimed = 1,
    GivenUp = 2,
}

const STATE: u64 = 0b111;
const CAUSE_SHIFT: u32 = 3;
const CAUSE: u64 = 0b11 << CAUSE_SHIFT;
const FATE_SHIFT: u32 = 5;
const FATE: u64 = 0b11 << FATE_SHIFT;
/// The watchdog has found that the run has to end.
const DUE: u64 = 1 << 7;
/// The interrupt word is set.
const INTERRUPTED: u64 = 1 << 8;
/// A host call was refused since the run is due.
const REFUSED: u64 = 1 << 9;
/// What is forgotten from one entry into the guest to the next.
const OF_ENTRY: u64 = DUE | INTERRUPTED | REFUSED;
/// Entries into the guest, modulo 2^16. An armed run may have several: one that makes room for an input comes first.
const ENTRY: u64 = 1 << 16;
const ENTRIES: u64 = 0xffff << 16;
/// Runs, modulo 2^32: a ticket lives as long as a request, in which no instance runs four billion times.
const RUN: u64 = 1 << 32;

/// All that is decided about the run that a control is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word(u64);

impl Word {
    fn state(self) -> State {
        match self.0 & STATE {
            0 => State::Idle,
            1 => State::Running,
            2 => State::Host,
            3 => State::Watchdog,
            4 => State::Killed,
            _ => State::Gone,
        }
    }

    fn cause(self) -> Option<StopCause> {
        match (self.0 & CAUSE) >> CAUSE_SHIFT {
            0 => None,
            c if c == StopCause::Cancelled as u64 => Some(StopCause::Cancelled),
            c if c == StopCause::Back as u64 => Some(StopCause::Back),
            _ => Some(StopCause::Deadline),
        }
    }

    fn fate(self) -> Fate {
        match (self.0 & FATE) >> FATE_SHIFT {
            0 => Fate::Open,
            1 => Fate::Claimed,
            _ => Fate::GivenUp,
        }
    }

    fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    fn ticket(self) -> Ticket {
        Ticket(self.0 / RUN)
    }

    fn with_state(self, state: State) -> Self {
        Self(self.0 & !STATE | state as u64)
    }

    fn with(self, flag: u64) -> Self {
        Self(self.0 | flag)
    }

    /// The first cause counts.
    fn with_cause(self, cause: StopCause) -> Self {
        if self.cause().is_some() { self } else { Self(self.0 | (cause as u64) << CAUSE_SHIFT) }
    }

    fn with_fate(self, fate: Fate) -> Self {
        Self(self.0 & !FATE | (fate as u64) << FATE_SHIFT)
    }

    /// The next run: nothing of the one before is left.
    fn next_run(self) -> Self {
        Self((self.0 / RUN).wrapping_add(1).wrapping_mul(RUN) | self.0 & STATE)
    }

    /// The guest is entered. What was asked since the run was armed still counts.
    fn entered(self) -> Self {
        let entries = self.0.wrapping_add(ENTRY) & ENTRIES;
        Self(self.0 & !(ENTRIES | OF_ENTRY) | entries).with_state(State::Running)
    }

    /// The guest was left.
    fn left(self, state: State) -> Self {
        Self(self.0 & !(CAUSE | OF_ENTRY)).with_state(state)
    }
}

const NO_DEADLINE: u64 = u64::MAX;

/// Monotonic time in microseconds since `epoch`.
fn micros_since(epoch: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(epoch).as_micros()).unwrap_or(u64::MAX)
}

/// What becomes of a host call.
#[derive(Debug)]
pub enum Entry<'a, M: Stoppable = LinearMemory> {
    /// It happens.
    Open(HostCallGuard<'a, M>),
    /// It does not: the run is over its time, and the guest is told to end it.
    Refused,
    /// The memory is gone: return at once and touch nothing.
    Gone,
}

/// While it lives, the guest's memory stays; also when the host call panics.
#[derive(Debug)]
pub struct HostCallGuard<'a, M: Stoppable = LinearMemory>(&'a RunControl<M>);

impl<M: Stoppable> Drop for HostCallGuard<'_, M> {
    fn drop(&mut self) {
        // nobody else changes the state while it is this one; other bits may change
        self.0.word.fetch_xor(State::Host as u64 ^ State::Running as u64, Ordering::AcqRel);
    }
}

/// Shared by an instance (which runs) and the watchdog (which stops).
#[derive(Debug)]
pub struct RunControl<M: Stoppable = LinearMemory> {
    word: AtomicU64,
    epoch: Instant,
    /// Of the entry that goes on. Set before the state says so.
    deadline: AtomicU64,
    /// When the watchdog first found that the run has to end. Only the watchdog writes it; it means something while `DUE` is
    /// set.
    due_since: AtomicU64,
    /// Means something while `INTERRUPTED` is set. Written by whoever sets that: the watchdog while it has the state, or the
    /// running thread within a host call.
    interrupted_at: AtomicU64,
    interrupt_word: AtomicU32,
    memory: M,
    /// Whether a run that goes on all the same loses its memory.
    may_kill: bool,
}

impl<M: Stoppable> RunControl<M> {
    /// `interrupt_word`: address of the word in linear memory that stops QuickJS. `may_kill`: the guest is native code, whose
    /// faults are traps. In WasmEdge's interpreter a fault is one of the process: there a run is asked to stop, again and again.
    pub fn new(memory: M, interrupt_word: u32, may_kill: bool) -> Arc<Self> {
        Arc::new(Self {
            word: AtomicU64::new(State::Idle as u64),
            epoch: Instant::now(),
            deadline: AtomicU64::new(NO_DEADLINE),
            due_since: AtomicU64::new(NO_DEADLINE),
            interrupted_at: AtomicU64::new(NO_DEADLINE),
            interrupt_word: AtomicU32::new(interrupt_word),
            memory,
            may_kill,
        })
    }

    fn load(&self) -> Word {
        Word(self.word.load(Ordering::SeqCst))
    }

    fn replace(&self, from: Word, to: Word) -> bool {
        self.word.compare_exchange(from.0, to.0, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Changes the word whatever else happens to it meanwhile. None of `change`: it stays. Returns what was there.
    fn change(&self, change: impl Fn(Word) -> Option<Word>) -> Result<Word, Word> {
        let mut word = self.load();
        loop {
            let Some(to) = change(word) else { return Err(word) };
            match self.word.compare_exchange(word.0, to.0, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Ok(word),
                Err(now) => word = Word(now),
            }
        }
    }

    // ---- the running thread ----

    /// A run begins: from here on its ticket stops it, before the guest is entered as well as afterwards. Whoever may stop it
    /// learns of it after this.
    pub fn arm(&self) -> Ticket {
        match self.change(|word| Some(word.next_run())) {
            Ok(before) | Err(before) => before.next_run().ticket(),
        }
    }

    /// The guest is about to run. A stop since `arm` still counts.
    pub fn begin(&self, deadline: Option<Instant>) {
        let at = deadline.map_or(NO_DEADLINE, |d| micros_since(self.epoch, d));
        self.deadline.store(at, Ordering::SeqCst);
        // sequentially consistent with the watchdog's `asleep`: one of the two sees the other
        let before = self.change(|word| Some(word.entered()));
        debug_assert!(matches!(before, Ok(word) if word.state() == State::Idle), "{before:?}");
    }

    /// The guest has returned or trapped.
    pub fn end(&self) -> Ended {
        loop {
            let word = self.load();
            let (to, ended) = match word.state() {
                // a few microseconds
                State::Watchdog => {
                    pause();
                    continue;
                }
                State::Killed => (State::Gone, Ended::Killed(word.cause().unwrap_or(StopCause::Deadline))),
                // nobody has let go of the memory, and nobody will
                State::Host => (State::Gone, Ended::Abandoned),
                State::Idle | State::Running | State::Gone => (State::Idle, Ended::Intact(word.cause())),
            };
            if self.replace(word, word.left(to)) {
                return ended;
            }
        }
    }

    /// What the run has done counts from here on, unless it was given up before: then its request is answered already, and
    /// nothing of it may become visible.
    pub fn claim(&self) -> bool {
        let open = |word: Word| (word.fate() == Fate::Open).then(|| word.with_fate(Fate::Claimed));
        !matches!(self.change(open), Err(word) if word.fate() == Fate::GivenUp)
    }

    /// A host call begins.
    pub fn enter_host(&self) -> Entry<'_, M> {
        loop {
            let word = self.load();
            match word.state() {
                State::Running if self.replace(word, word.with_state(State::Host)) => {
                    if word.has(DUE) {
                        return self.enter_host_late();
                    }
                    return Entry::Open(HostCallGuard(self));
                }
                State::Killed => return Entry::Gone,
                _ => pause(),
            }
        }
    }

    #[cfg(test)]
    pub fn is_in_host_call(&self) -> bool {
        self.load().state() == State::Host
    }

    /// Whether the run has to end, for a host call that takes longer than most: one that gives up leaves that as the cause.
    pub fn is_due(&self) -> bool {
        if self.load().cause().is_some() {
            return true;
        }
        if micros_since(self.epoch, Instant::now()) < self.deadline.load(Ordering::SeqCst) {
            return false;
        }
        // the run is ours: it cannot have become another one
        let _ = self.change(|word| Some(word.with_cause(StopCause::Deadline)));
        true
    }

    /// In a host call, after the watchdog has found that the run has to end.
    #[cold]
    fn enter_host_late(&self) -> Entry<'_, M> {
        let now = micros_since(self.epoch, Instant::now());
        // the state is ours meanwhile: only causes, fates and `DUE` are added by others
        let word = self.load();
        let grace_is_over = || now >= self.interrupted_at.load(Ordering::Relaxed).saturating_add(KILL_GRACE_MICROS);
        if !word.has(INTERRUPTED) {
            self.memory.interrupt(self.interrupt_word.load(Ordering::Relaxed));
            self.interrupted_at.store(now, Ordering::Relaxed);
        } else if grace_is_over() {
            let _ = self.change(|word| Some(word.with_cause(StopCause::Deadline).with_state(State::Killed)));
            return Entry::Gone;
        }
        let late = |word: Word| Some(word.with_cause(StopCause::Deadline).with(INTERRUPTED | REFUSED));
        let guard = HostCallGuard(self);
        match self.change(late) {
            // once: what the handler has changed is still handed over while it ends
            Ok(before) if before.has(REFUSED) => Entry::Open(guard),
            Ok(_) | Err(_) => Entry::Refused,
        }
    }

    // ---- other threads ----

    /// Asks for the end of a run. False: it is over, or its end was asked for before.
    pub fn stop(&self, ticket: Ticket, cause: StopCause) -> bool {
        let ours = |word: Word| (word.ticket() == ticket && word.cause().is_none()).then(|| word.with_cause(cause));
        self.change(ours).is_ok()
    }

    /// The thread of a run is replaced: whatever becomes of it, nobody waits for it any more. False: it has ended by now, and
    /// what it did counts.
    pub fn give_up(&self, ticket: Ticket) -> bool {
        let open =
            |word: Word| (word.ticket() == ticket && word.fate() == Fate::Open).then(|| word.with_fate(Fate::GivenUp));
        match self.change(open) {
            Ok(_) => true,
            Err(word) => word.ticket() == ticket && word.fate() == Fate::GivenUp,
        }
    }

    /// What the instance holds of memory at this moment. Slow: it asks the kernel for each page.
    pub fn resident_bytes(&self) -> Option<u64> {
        self.memory.resident_bytes()
    }

    /// Whether it still runs and somebody waits for it, `by` after its deadline or after it was told to stop.
    pub fn is_overdue(&self, now: Instant, by: Duration) -> bool {
        let word = self.load();
        let end = if word.has(INTERRUPTED) { &self.interrupted_at } else { &self.deadline }.load(Ordering::SeqCst);
        let late = end.saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX));
        let over = !matches!(word.state(), State::Idle | State::Gone)
            && word.fate() != Fate::GivenUp
            && end != NO_DEADLINE
            && micros_since(self.epoch, now) > late;
        // what was read belongs together only if it is still the same entry
        over && self.load().0 & !STATE == word.0 & !STATE
    }

    /// One look of the watchdog. True while something runs.
    pub fn patrol(&self, now: Instant) -> bool {
        let word = self.load();
        if matches!(word.state(), State::Idle | State::Gone) {
            return false;
        }
        let now = micros_since(self.epoch, now);
        if word.cause().is_none() && now < self.deadline.load(Ordering::SeqCst) {
            return true;
        }
        if !word.has(DUE) {
            self.due_since.store(now, Ordering::SeqCst);
        }
        let kill = self.may_kill && word.has(INTERRUPTED);
        let grace_is_over = || now >= self.interrupted_at.load(Ordering::SeqCst).saturating_add(KILL_GRACE_MICROS);
        // a word that has changed meanwhile is looked at again at the next tick
        match word.state() {
            State::Running if !kill || grace_is_over() => {
                let ours = word.with(DUE).with_cause(StopCause::Deadline).with_state(State::Watchdog);
                if self.replace(word, ours) {
                    self.end_run(now, kill);
                }
            }
            State::Running | State::Host => {
                let _ = word.has(DUE) || self.replace(word, word.with(DUE));
            }
            State::Idle | State::Watchdog | State::Killed | State::Gone => {}
        }
        true
    }

    /// The guest's memory is the watchdog's.
    fn end_run(&self, now: u64, kill: bool) {
        let mut next = State::Running;
        if kill {
            match faults::io(Point::Kill).and_then(|()| self.memory.revoke()) {
                Ok(()) => next = State::Killed,
                Err(e) => log::error!("cannot take the memory of a run away: {e}"),
            }
        } else {
            self.memory.interrupt(self.interrupt_word.load(Ordering::Relaxed));
        }
        if next == State::Running {
            self.interrupted_at.store(now, Ordering::SeqCst);
        }
        let _ = self.change(|word| Some(word.with(INTERRUPTED).with_state(next)));
    }

    /// The time up to `now` is not counted as one in which the run could have come back. Called by the watchdog only.
    pub fn forgive(&self, now: Instant) {
        if self.load().has(DUE) {
            self.due_since.store(micros_since(self.epoch, now), Ordering::SeqCst);
        }
    }

    /// Why a run had to end, and for how long that is known, if it still runs.
    pub fn due_for(&self, ticket: Ticket, now: Instant) -> Option<(StopCause, Duration)> {
        let word = self.load();
        let runs = !matches!(word.state(), State::Idle | State::Gone);
        if word.ticket() != ticket || !word.has(DUE) || !runs {
            return None;
        }
        let since = self.due_since.load(Ordering::SeqCst);
        let late = Duration::from_micros(micros_since(self.epoch, now).saturating_sub(since));
        Some((word.cause().unwrap_or(StopCause::Deadline), late))
    }
}

impl Control for RunControl {
    fn arm(&self) -> Ticket {
        Self::arm(self)
    }

    fn stop(&self, ticket: Ticket, cause: StopCause) -> bool {
        Self::stop(self, ticket, cause)
    }

    fn give_up(&self, ticket: Ticket) -> bool {
        Self::give_up(self, ticket)
    }

    fn due_for(&self, ticket: Ticket, now: Instant) -> Option<(StopCause, Duration)> {
        Self::due_for(self, ticket, now)
    }

    fn forgive(&self, now: Instant) {
        Self::forgive(self, now);
    }

    fn resident_bytes(&self) -> Option<u64> {
        Self::resident_bytes(self)
    }
}

/// While the watchdog has the state.
fn pause() {
    #[cfg(feature = "model")]
    loom::thread::yield_now();
    #[cfg(not(feature = "model"))]
    std::hint::spin_loop();
}

#[cfg(all(test, not(feature = "model")))]
mod tests;
