//! The last two steps of the kill ladder: giving a stuck thread up, and giving the process up.
//!
//! A worker that the interrupt word and the loss of its memory did not bring back is retired: its request is answered, its
//! place is free, another thread is started. If it ever comes back, it drops what it holds and ends. The process ends when
//! too many threads are out, or when one has something with it that nobody can replace: the poller, the books, the watchdog,
//! the housekeeping.
//! Clients see the end of their connections, and start another process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, mpsc};
use std::time::{Duration, Instant};

use nexus_protocol::limits::{FAREWELL_MS, MAX_RETIRED_PER_CONNECTION, PROCESS_GRACE_MS};
use nexus_protocol::message::Kind;
use nexus_protocol::{ErrorCode, SidecarMessage, WireError};

use super::connection::Connection;
use super::crew::{Budget, RunId, Stuck};
use super::errand::Errand;
use super::hub::{Job, Retired};
use super::refusal::overloaded;
use super::state::State;
use super::{Mode, Server};
use crate::execution::{self, Arrival, Totals};
use crate::exit::ExitCode;
use crate::faults::{self, Point};
use crate::os;
use crate::token::StopCause;

/// The watchdog looks at least once a second.
const PAUSE: Duration = Duration::from_secs(3);
const PROCESS_GRACE: Duration = Duration::from_millis(PROCESS_GRACE_MS);

impl Server {
    /// Starts one more worker.
    pub(super) fn start_worker(self: &Arc<Self>) -> std::io::Result<()> {
        let id = self.lock().hub.crew.hire();
        let server = self.clone();
        let stack = crate::engine::thread_stack_bytes(self.runtime.engine().options().stack_bytes);
        let life = move || {
            // a panic within a request is caught where it can be answered; one that arrives here had the poller or the books
            let life = || {
                if let Some(thread) = os::Thread::this() {
                    server.lock().hub.crew.started(id, thread);
                }
                server.work(id);
            };
            if catch_unwind(AssertUnwindSafe(life)).is_err() {
                server.give_up("a worker panicked outside of any request");
            }
        };
        let thread = std::thread::Builder::new().name(format!("worker-{}", id.number())).stack_size(stack);
        let started = faults::io(Point::Thread).and_then(|()| thread.spawn(life)).map(drop);
        if started.is_err() {
            self.lock().hub.crew.let_go(id, 0);
        }
        started
    }

    /// Gives up whoever is stuck. Called at every look of the watchdog, which has the books then; None: somebody else has them.
    pub(super) fn look_after_the_stuck(self: &Arc<Self>, now: Instant) -> Option<MutexGuard<'_, State>> {
        let paused = self.was_paused(now);
        // held for microseconds only; whoever holds it now is at work anyway
        let state = self.try_lock();
        if paused || state.is_some() {
            self.books_seen.store(self.micros(now), Ordering::Relaxed);
        } else if self.micros(now).saturating_sub(self.books_seen.load(Ordering::Relaxed)) >= micros(PROCESS_GRACE) {
            self.give_up("the books of the server are held by a thread that is stuck");
        }
        state.map(|state| if paused { self.forgive(state, now) } else { self.rescue(state, now) })
    }

    fn rescue<'a>(self: &'a Arc<Self>, mut state: MutexGuard<'a, State>, now: Instant) -> MutexGuard<'a, State> {
        if state.polling.for_longer_than(PROCESS_GRACE, now) {
            drop(state);
            self.give_up("the thread that has the connections is stuck");
        }
        if self.keeping.for_longer_than(PROCESS_GRACE, now) {
            drop(state);
            self.give_up("the housekeeper is stuck");
        }
        if state.poller.is_some() && now.saturating_duration_since(state.last_poll) >= PROCESS_GRACE {
            drop(state);
            self.give_up("no worker is left that could look after the connections");
        }
        for (run, why) in state.hub.crew.stuck(now) {
            let Some(retired) = state.hub.retire(run, why) else { continue };
            // it counted since it took its job; from now on whoever answers in its place counts
            state.holding -= 1;
            state.stand_ins += 1;
            let broken = state.hub.crew.is_broken();
            drop(state);
            self.replace(run, why, &retired);
            if broken {
                self.give_up("too many threads are stuck");
            }
            state = self.lock();
        }
        state
    }

    fn replace(self: &Arc<Self>, run: RunId, why: Stuck, work: &Retired<Arc<Connection>>) {
        let waited = work.enqueued.elapsed();
        log::error!(
            "worker {} is stuck ({why:?}) with a request of {} ms; it is given up and replaced",
            run.worker().number(),
            waited.as_millis()
        );
        let error = of_stuck(why, work.budget, waited);
        let error = error.with_context_text("stage", "retired");
        // how far it came is not known: what it did may count already
        let error = if work.kind.has_effects() { error.not_retryable() } else { error };
        self.runtime.observer.record_error(error.code);
        if let Err(e) = self.start_worker() {
            log::error!("cannot start another worker: {e}");
            self.give_up("a stuck worker could not be replaced");
        }
        // by another thread: the stuck one may hold the connection's buffer, and the watchdog must not wait for it
        let (connection, id, kind, server) = (work.connection.clone(), work.id, work.kind, self.clone());
        let arrival = Arrival { since: work.enqueued, waited: Duration::ZERO };
        let answer = move || {
            if matches!(kind, Kind::Execute | Kind::Resume) {
                let report = Totals::begun(arrival).failure(error);
                connection.append_answer(|out, max| report.encode(id, max, out));
            } else {
                connection.send_answer(id, &SidecarMessage::Error(error));
            }
            server.flush(&connection);
            server.is_told(&connection);
        };
        if std::thread::Builder::new().name("answer".into()).spawn(answer).is_err() {
            self.give_up("a stuck request could not be answered");
        }
    }

    /// A request that cost a thread was answered. Before the process pays for what one client does, that client's connection
    /// goes; it has been told what became of those requests by then.
    fn is_told(&self, connection: &Arc<Connection>) {
        let mut state = self.lock();
        state.stand_ins -= 1;
        let cost = state.hub.count_cost(connection.session);
        if self.mode == Mode::Service && cost == MAX_RETIRED_PER_CONNECTION {
            state.errands.push(Errand::Expel(connection.clone()));
            drop(state);
            self.wake_poller();
        }
    }

    /// Whether the watchdog itself has not looked for long: the process was stopped, or the machine. Nobody is stuck then.
    fn was_paused(&self, now: Instant) -> bool {
        let before = self.looked.swap(self.micros(now), Ordering::Relaxed);
        self.micros(now).saturating_sub(before) >= micros(PAUSE)
    }

    /// Everybody's time begins anew.
    fn forgive<'a>(&self, mut state: MutexGuard<'a, State>, now: Instant) -> MutexGuard<'a, State> {
        state.last_poll = now;
        state.polling.forgive(now);
        self.keeping.forgive(now);
        state.hub.crew.forgive(now);
        state
    }

    /// Since the start.
    fn micros(&self, now: Instant) -> u64 {
        micros(now.saturating_duration_since(self.started))
    }

    /// Ends the process. What has not run is answered first, so that clients know that it may be repeated.
    pub(super) fn give_up(self: &Arc<Self>, why: &str) -> ! {
        log::error!("{why}: the process ends with exit code {}", ExitCode::Stuck as u8);
        let (said, done) = mpsc::channel();
        let server = self.clone();
        let farewell = move || {
            let (queued, errands) = {
                let mut state = server.lock();
                (state.hub.drain_queues(), std::mem::take(&mut state.errands))
            };
            for job in queued.iter().chain(errands.iter().filter_map(Errand::job)) {
                server.refuse_at_the_end(job);
            }
            while server.lock().stand_ins > 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            let _ = said.send(());
        };
        if std::thread::Builder::new().name("farewell".into()).spawn(farewell).is_ok() {
            let _ = done.recv_timeout(Duration::from_millis(FAREWELL_MS));
        }
        os::exit_now(ExitCode::Stuck as u8)
    }

    fn refuse_at_the_end(&self, job: &Job) {
        self.answer_unrun(job, overloaded("the sidecar is about to restart".into()));
        job.connection.flush();
    }
}

/// What a request is told whose thread was given up, `waited` after it came.
fn of_stuck(why: Stuck, budget: Budget, waited: Duration) -> WireError {
    match why {
        Stuck::InGuest(StopCause::Cancelled) => execution::cancelled(),
        Stuck::InGuest(StopCause::Deadline) => execution::of_time(
            "the execution did not end when its time was used up; its thread was given up".into(),
            budget.timeout,
            budget.spent + waited,
        ),
        // nobody has asked for its end: that it was to begin again is the sidecar's own affair
        Stuck::InGuest(StopCause::Back) | Stuck::InHost => {
            WireError::new(ErrorCode::WasmError, "the request got stuck in the sidecar; its thread was given up")
                .with_context_number("count", waited.as_millis() as u64)
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_was_cancelled_is_told_so_and_only_who_had_no_time_left_is_told_that() {
        let budget = Budget { timeout: Some(Duration::from_millis(40)), spent: Duration::from_millis(30) };
        let code = |why| of_stuck(why, budget, Duration::from_millis(20)).code;
        assert_eq!(code(Stuck::InGuest(StopCause::Cancelled)), ErrorCode::Cancelled);
        assert_eq!(code(Stuck::InGuest(StopCause::Deadline)), ErrorCode::Timeout);
        assert_eq!(code(Stuck::InGuest(StopCause::Back)), ErrorCode::WasmError);
        assert_eq!(code(Stuck::InHost), ErrorCode::WasmError);
    }
}
