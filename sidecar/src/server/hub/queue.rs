//! The part of the hub in which requests wait for a worker: taken in, and given out in turn.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_protocol::limits::{BUSY_IN_FRONT_US, IN_FRONT_MS, LONG_RUN_KEEPS_AWAY, LONG_RUN_KEEPS_AWAY_MS, LONG_RUN_MS};
use nexus_protocol::message::Kind;
use nexus_protocol::{RequestId, SuspensionId};

use super::turns::Standing;
use super::{Books, Held, Holder, Hub, HubLimits, Item, Job, Peer, Refusal, Request, SessionId, Slot, Unanswered};
use crate::budget::Full;
use crate::execution::Arrival;
use crate::server::crew::{RunId, WorkerId, begins_again};
use crate::share::{Share, Whose};
use crate::token::StopToken;

/// From so many instances on the last one is kept for sessions that run nothing.
const KEEPS_ONE_FROM: usize = 3;
/// So often in turn the last instance goes to one whose runs are brief while one of whom nothing is known waits.
pub(super) const BRIEF_IN_TURN: u32 = 8;
/// What is no brief run any more.
pub(super) const LONG_RUN: Duration = Duration::from_millis(LONG_RUN_MS);
pub(super) const IN_FRONT: Duration = Duration::from_millis(IN_FRONT_MS);
const BUSY_IN_FRONT: Duration = Duration::from_micros(BUSY_IN_FRONT_US);
pub(super) const KEPT_AWAY_AT_MOST: Duration = Duration::from_millis(LONG_RUN_KEEPS_AWAY_MS);

/// Of a session whose run has used `cpu`: kept away for a multiple of that from `since` on. None: no clock goes so far.
fn busy(since: Instant, cpu: Duration, now: Instant) -> Option<Standing> {
    let until = since.checked_add(cpu.saturating_mul(LONG_RUN_KEEPS_AWAY));
    until.into_iter().chain(now.checked_add(KEPT_AWAY_AT_MOST)).min().map(Standing::Busy)
}

/// What a worker is to do next.
#[derive(Debug)]
pub struct Next<E, P> {
    pub job: Job<P>,
    pub run: RunId,
    /// By which the worker learns that it is to end.
    pub token: Arc<StopToken>,
    /// When the job could have begun, and how long it has waited since for an instance.
    pub arrival: Arrival,
    /// What the job resumes, where that was known before it was read.
    pub resumed: Option<Resumed<E>>,
    /// Its session is busy, or runs often, and others are there.
    pub is_behind: bool,
}

/// A suspended execution that its worker has.
#[derive(Debug)]
pub struct Resumed<E> {
    pub key: u64,
    pub id: SuspensionId,
    pub execution: Box<E>,
}

/// What a run does whose trial is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It goes on beside the others.
    Beside,
    /// Its job begins again.
    Back,
    /// It is over, or ends.
    Over,
}

/// What a worker gets when it asks for a suspended execution.
#[derive(Debug)]
pub enum Taken<E, P> {
    Run(Resumed<E>, Arrival),
    /// Somebody else has it; the job is in its mailbox, and the run is over.
    Waits,
    Unknown(Job<P>),
}

impl<E: Held, P: Peer> Hub<E, P> {
    /// Takes a job in, or gives it back with the reason.
    pub fn enqueue(&mut self, mut job: Job<P>) -> Result<(), (Job<P>, Refusal)> {
        let Some(books) = self.sessions.get(&job.session) else { return Ok(()) };
        if books.requests.contains_key(&job.id) {
            return Err((job, Refusal::DuplicateId));
        }
        if (self.draining || books.leaving) && job.kind != Kind::Resume {
            return Err((job, Refusal::Draining));
        }
        if let Some(full) = self.refuses(books) {
            return Err((job, Refusal::Overloaded(full)));
        }
        job.number = self.new_number();
        self.queued += 1;
        match self.addressee(&job) {
            Some(key) => self.deliver(key, job),
            None => {
                self.note(&job, Request::Queued);
                self.push_back(job.session, Item::Job(job));
            }
        }
        Ok(())
    }

    /// Of an execution.
    pub fn new_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// Why a session may have no more requests.
    fn refuses(&self, books: &Books<P>) -> Option<Full> {
        let HubLimits { max_running, max_queued, max_in_flight, .. } = self.limits;
        // what finds an instance at once does not wait
        let free = max_running.saturating_sub(self.occupied()) as u64;
        let (waiting, limit) = (books.waiting() as u64 + 1, max_queued as u64);
        let full = |resource, limit: u64, whose| Some(Full { resource, limit, count: limit + 1, whose });
        // the setting before what follows from it
        if !Share::of(limit).raised_by(free).allows(waiting, self.queued as u64 + 1) {
            full("maxQueued", limit, Whose::All)
        } else if books.requests.len() >= max_in_flight {
            full("maxInFlight", max_in_flight as u64, Whose::Own)
        } else if self.sessions.len() > 1 && waiting > limit.div_ceil(2) + free {
            // the other half is for the others
            full("maxQueued", limit.div_ceil(2), Whose::Own)
        } else {
            None
        }
    }

    /// Where an unanswered request is.
    pub(super) fn note(&mut self, job: &Job<P>, at: Request) {
        let Some(books) = self.sessions.get_mut(&job.session) else { return };
        match books.requests.entry(job.id) {
            Entry::Occupied(mut known) => known.get_mut().at = at,
            Entry::Vacant(new) => {
                let slot = self.roll.enter(job.connection.mark(), job.id, job.kind);
                new.insert(Unanswered { at, slot });
            }
        }
    }

    /// A request is about to be answered. Its answer is a reason for doubt until it has left.
    pub(super) fn no_longer_unanswered(
        &mut self,
        session: SessionId,
        id: RequestId,
        connection: &P,
        is_it: impl Fn(Request) -> bool,
    ) {
        let books = self.sessions.get_mut(&session);
        let requests =
            books.map(|books| &mut books.requests).filter(|all| all.get(&id).is_some_and(|one| is_it(one.at)));
        let slot = requests.and_then(|requests| requests.remove(&id)).map(|request| request.slot);
        if slot != Some(Slot::Doubt) {
            connection.mark().doubt();
        }
        slot.into_iter().for_each(|slot| self.roll.leave(slot));
    }

    pub(super) fn push_back(&mut self, session: SessionId, item: Item<P>) {
        let Some(books) = self.sessions.get_mut(&session) else { return };
        if books.queue.is_empty() {
            self.turns.push_back(session, books.standing);
        }
        books.queue.push_back(item);
    }

    /// For what has waited in the queue once.
    pub(super) fn push_front(&mut self, session: SessionId, item: Item<P>) {
        let Some(books) = self.sessions.get_mut(&session) else { return };
        if books.queue.is_empty() {
            self.turns.push_front(session, books.standing);
        }
        books.queue.push_front(item);
    }

    /// A job has left the queue or a mailbox.
    pub(super) fn no_longer_queued(&mut self) {
        self.queued -= 1;
    }

    /// A job that was taken out of the queue, or of a mailbox, is about to be answered: its id may be used again.
    pub fn answer_unrun(&mut self, job: &Job<P>) {
        self.no_longer_unanswered(job.session, job.id, &job.connection, |at| !matches!(at, Request::Running(_)));
    }

    /// Sessions without anything in their queue have no turn.
    pub(super) fn skip_the_empty(&mut self) {
        let sessions = &self.sessions;
        self.turns.retain(|session| sessions.get(session).is_some_and(|books| !books.queue.is_empty()));
    }

    /// Whose turn it is; None: nobody may run more than is running.
    ///
    /// A session with too many answers that are not read has its turn when they are. While there are several sessions, each may
    /// run its share at once: guests only compute, so more of them at once than there are processors would help nobody.
    ///
    /// From three instances on, the last free one is for sessions that run nothing and whose runs are brief: so whoever comes finds
    /// it free, or free in a moment, whatever others have all the other instances do. Those whose last run was brief come before those
    /// of whom nothing is known, a few times in turn. What a run is like shows when it runs: see `end_trial`. So whoever comes waits
    /// for a trial of each of whom nothing is known either and who came before, and not for anybody's run.
    ///
    /// Those that are busy, or run often, have together no more runs at once than there are processors, but for runs that give way or stand still: so
    /// a run of somebody else finds a processor soon, however many they are, and what they use they would not use sooner otherwise.
    ///
    /// Only those that run something are passed over, of which there are few, and those that do not read.
    fn first_in_turn(&mut self, now: Instant) -> Option<SessionId> {
        let max = self.limits.max_running;
        if self.occupied() >= max {
            return None;
        }
        self.relieve(now);
        if self.is_last_free() {
            let brief = self.turns.brief().find(|session| self.may_run(*session, 1));
            if brief.is_some() && self.brief_in_turn < BRIEF_IN_TURN {
                return brief;
            }
            let may_be_tried = |session: &SessionId| self.may_run(*session, 1) && self.has_trial(*session);
            return self.turns.unknown().find(may_be_tried).or(brief);
        }
        let is_alone = self.sessions.len() <= 1;
        let each = if is_alone { max } else { self.limits.max_running_each.max(1) };
        let without_busy = !is_alone && self.turns.has_busy() && self.busy_in_front(now) >= self.limits.processors;
        self.turns.all(without_busy).find(|session| self.may_run(*session, each))
    }

    /// Runs, of sessions that are busy or run often, that are in front: see `Run::is_in_front`.
    fn busy_in_front(&self, now: Instant) -> usize {
        let standing = |session| self.sessions.get(&session).and_then(|books| books.standing.until());
        let is_busy = |session| standing(session).is_some_and(|until| until > now);
        self.crew.runs().filter(|(_, run)| run.is_in_front(now) && is_busy(run.session)).count()
    }

    /// Whether one instance is free, and it is not for everybody.
    fn is_last_free(&self) -> bool {
        let max = self.limits.max_running;
        self.limits.keeps_last && max >= KEEPS_ONE_FROM && self.occupied() + 1 == max
    }

    /// Instances that are in use, of those that there may be.
    pub(super) fn occupied(&self) -> usize {
        self.running() - self.beside
    }

    /// Who is known to be brief may have the last instance in any case; somebody else, where its run can go on beside the others
    /// if it takes its time, or begin again.
    fn has_trial(&self, session: SessionId) -> bool {
        let next = self.sessions.get(&session).and_then(|books| books.queue.front());
        matches!(next, Some(Item::Job(job)) if begins_again(job.kind)) || self.has_room_beside(false)
    }

    /// As many may go on beside as may run; those that cannot begin again, twice as many.
    fn has_room_beside(&self, begins_again: bool) -> bool {
        let most = self.limits.max_running;
        self.beside < if begins_again { most } else { most.saturating_mul(2) }
    }

    fn may_run(&self, session: SessionId, each: usize) -> bool {
        self.sessions.get(&session).is_some_and(|books| books.running < each && !self.is_over(books))
    }

    /// Whose long runs are long ago is not busy any more, nor does run often who did.
    fn relieve(&mut self, now: Instant) {
        if self.turns.has_relief(now) {
            let Self { turns, sessions, .. } = self;
            turns.relieve(|session| {
                let Some(books) = sessions.get_mut(&session) else { return Standing::Unknown };
                if books.standing.until().is_some_and(|until| until <= now) {
                    books.standing = Standing::Unknown;
                }
                books.standing
            });
        }
    }

    /// A run that has the last instance, has used `time` of a processor there, and keeps it from somebody who waits. The caller calls
    /// `make_way`, and sees to it that there are workers.
    pub fn end_trial(&mut self, time: Duration, now: Instant) -> Option<RunId> {
        if self.occupied() < self.limits.max_running {
            return None;
        }
        let run = self.crew.on_trial_for(time)?;
        if !self.has_room_beside(true) && !self.crew.can_begin_again(run) && !self.has_room_beside(false) {
            return None;
        }
        let session = self.crew.get(run)?.session;
        self.relieve(now);
        let mut others = self.turns.brief().chain(self.turns.unknown()).filter(|other| *other != session);
        others.any(|other| self.may_run(other, 1)).then_some(run)
    }

    /// While there are several sessions, runs that take their time give way to those that may be brief: see `Crew::have_give_way`. Those of
    /// a session whose runs are known to be long do so sooner.
    pub fn have_give_way(&mut self) {
        if self.sessions.len() <= 1 {
            return;
        }
        let Self { crew, sessions, .. } = self;
        crew.have_give_way(|session| match sessions.get(&session).map(|books| books.standing) {
            Some(Standing::Brief | Standing::Unknown | Standing::Often(_)) => IN_FRONT,
            Some(Standing::Busy(_)) | None => BUSY_IN_FRONT,
        });
    }

    /// A run makes way for others: it goes on beside them, and nothing is stopped for it; or its guest is stopped, and its job begins
    /// again later. Nobody sees a difference but in time.
    pub fn make_way(&mut self, run: RunId) -> Way {
        let can_begin_again = self.crew.can_begin_again(run);
        if !self.has_room_beside(can_begin_again) {
            return if can_begin_again && self.crew.put_back(run) { Way::Back } else { Way::Over };
        }
        let goes_on = self.crew.set_beside(run);
        self.beside += usize::from(goes_on);
        if goes_on { Way::Beside } else { Way::Over }
    }

    /// The guest of a run was stopped, which made way: its job waits again, first of its session, which has had its trial. False: it
    /// did not make way, or is to end.
    pub fn begin_again(&mut self, job: &Job<P>, run: RunId, now: Instant) -> bool {
        if !self.crew.is_put_back(run) {
            return false;
        }
        if let Some(run) = self.crew.end(run) {
            self.no_longer_running(&run);
        }
        self.note(job, Request::Queued);
        let Some(books) = self.sessions.get_mut(&job.session) else { return true };
        if let Some(busy) = busy(now, LONG_RUN, now) {
            books.standing = busy;
        }
        if books.queue.is_empty() {
            self.turns.push_back(job.session, books.standing);
        } else {
            self.turns.is_now(job.session, books.standing);
        }
        books.queue.push_front(Item::Job(job.clone()));
        self.queued += 1;
        true
    }

    /// Workers that there have to be: for what may run, for what runs beside, and one at the poller.
    fn workers_wanted(&self) -> usize {
        self.limits.max_running + self.beside + 1
    }

    /// How many more there have to be.
    pub fn workers_lacking(&self) -> usize {
        self.workers_wanted().saturating_sub(self.crew.workers())
    }

    /// For a worker that finds nothing to do: true if it was there for a run beside, and is to end.
    pub fn lets_go(&mut self, worker: WorkerId) -> bool {
        let wanted = self.workers_wanted();
        self.crew.let_go(worker, wanted)
    }

    /// A run is about to be answered, and took so much processor time: one that was long keeps its session from the last free
    /// instance for a while, and so do many brief ones that took much together.
    pub fn used(&mut self, run: RunId, cpu: Duration, now: impl FnOnce() -> Instant) {
        let Some(session) = self.crew.get(run).map(|run| run.session) else { return };
        let there = self.sessions.len();
        let Some(books) = self.sessions.get_mut(&session) else { return };
        let often = self.windows.add(&mut books.usage, cpu, there);
        if cpu < LONG_RUN {
            if let Some(until) = often
                && !matches!(books.standing, Standing::Busy(_))
            {
                let did = matches!(books.standing, Standing::Often(_));
                books.standing = Standing::Often(until);
                if !did {
                    self.turns.is_now(session, books.standing);
                }
            }
            return;
        }
        let now = now();
        let since = if let Standing::Busy(until) = books.standing { until.max(now) } else { now };
        if let Some(busy) = busy(since, cpu, now) {
            books.standing = busy;
            self.turns.is_now(session, books.standing);
        }
    }

    fn is_over(&self, books: &Books<P>) -> bool {
        match books.queue.front() {
            Some(Item::Job(job)) => job.connection.is_over(),
            Some(Item::Mail(key)) => {
                let job = self.entries.get(key).and_then(|entry| entry.mailbox.front());
                job.is_some_and(|job| job.connection.is_over())
            }
            None => false,
        }
    }

    /// Whether `next` would give something.
    pub fn has_ready(&mut self, now: Instant) -> bool {
        self.first_in_turn(now).is_some()
    }

    /// Whether the job that is next could run, and has waited for `age`.
    pub fn has_backlog(&mut self, now: Instant, age: Duration) -> bool {
        let first = self.first_in_turn(now);
        let Some(books) = first.and_then(|session| self.sessions.get(&session)) else { return false };
        let since = match books.queue.front() {
            Some(Item::Job(job)) => job.enqueued,
            Some(Item::Mail(key)) => {
                match self.entries.get(key).and_then(|entry| Some((entry, entry.mailbox.front()?))) {
                    Some((entry, job)) => job.enqueued.max(entry.free_since),
                    None => return false,
                }
            }
            None => return false,
        };
        now.saturating_duration_since(since) >= age
    }

    /// The next job, in turn of the sessions, and what it resumes. It is the worker's run until that is answered.
    pub fn next(&mut self, worker: WorkerId, now: Instant) -> Option<Next<E, P>> {
        let session = self.first_in_turn(now)?;
        let is_last = self.is_last_free();
        self.turns.remove(session);
        if is_last {
            let is_brief = self.sessions.get(&session).is_some_and(|books| books.standing == Standing::Brief);
            let passes = is_brief && self.turns.unknown().next().is_some();
            self.brief_in_turn = if passes { self.brief_in_turn + 1 } else { 0 };
        }
        let books = self.sessions.get_mut(&session)?;
        let item = books.queue.pop_front()?;
        if !books.queue.is_empty() {
            self.turns.push_back(session, books.standing);
        }
        let (job, key) = match item {
            Item::Job(job) => (job, None),
            Item::Mail(key) => {
                let entry = self.entries.get_mut(&key)?;
                entry.announced = false;
                (entry.mailbox.pop_front()?, Some(key))
            }
        };
        self.no_longer_queued();
        let (run, token) = self.crew.begin(worker, &job, now)?;
        if is_last
            && matches!(job.kind, Kind::Execute | Kind::ExecuteMany | Kind::Resume | Kind::Precompile | Kind::Check)
        {
            self.crew.try_out(run);
        }
        if let Some(books) = self.sessions.get_mut(&session) {
            books.running += 1;
            self.windows.begin(&mut books.usage, now);
            if let Some(request) = books.requests.get_mut(&job.id) {
                request.at = Request::Running(run);
                self.roll.begins(request.slot);
            }
        }
        let arrival = self.arrival(key, &job, now);
        let resumed = key.zip(job.suspension).and_then(|(key, id)| {
            let execution = self.lend(key, id, run)?;
            Some(Resumed { key, id, execution })
        });
        let standing = self.sessions.get(&job.session).map(|books| books.standing).unwrap_or_default();
        let is_behind = self.sessions.len() > 1 && standing.until().is_some_and(|until| until > now);
        Some(Next { job, run, token, arrival, resumed, is_behind })
    }

    /// A run ends without an answer: its job waits again, in front of the others of its session.
    pub fn put_off(&mut self, job: Job<P>, run: RunId) {
        if let Some(run) = self.crew.end(run) {
            self.no_longer_running(&run);
        }
        // whoever is gone waits for nothing
        if self.is_open(job.session) {
            self.queued += 1;
            self.note(&job, Request::Queued);
            self.push_front(job.session, Item::Job(job));
        }
    }

    /// A run ends without an answer, and what is left of its job waits again, behind what else does. False: it is to end instead.
    pub fn go_behind(&mut self, mut job: Job<P>, run: RunId, now: Instant) -> bool {
        if self.crew.get(run).is_none_or(|run| run.ending().is_some()) {
            return false;
        }
        if let Some(run) = self.crew.end(run) {
            self.no_longer_running(&run);
        }
        if self.is_open(job.session) {
            self.queued += 1;
            self.note(&job, Request::Queued);
            job.enqueued = now;
            self.push_back(job.session, Item::Job(job));
        }
        true
    }

    /// A job could have begun when it came; a resume, when its execution could go on as well.
    fn arrival(&self, key: Option<u64>, job: &Job<P>, now: Instant) -> Arrival {
        let entry = key.and_then(|key| self.entries.get(&key));
        let since = entry.map_or(job.enqueued, |entry| entry.free_since.max(job.enqueued));
        Arrival { since, waited: now.saturating_duration_since(since) }
    }

    /// For a run whose frame did not say at once which suspension it is for.
    pub fn take(&mut self, id: SuspensionId, mut job: Job<P>, run: RunId, now: Instant) -> Taken<E, P> {
        job.suspension = Some(id);
        // whoever is gone resumes nothing, and nothing of it waits: its runs may take a while to end
        let is_there = self.crew.get(run).is_some() && self.is_open(job.session);
        let Some(key) = self.addressee(&job).filter(|_| is_there) else { return Taken::Unknown(job) };
        let Some(entry) = self.entries.get(&key) else { return Taken::Unknown(job) };
        if matches!(entry.holder, Holder::Suspended(_)) && entry.mailbox.is_empty() {
            let arrival = self.arrival(Some(key), &job, now);
            self.no_longer_expires(key);
            return match self.lend(key, id, run) {
                Some(execution) => Taken::Run(Resumed { key, id, execution }, arrival),
                None => Taken::Unknown(job),
            };
        }
        if let Some(run) = self.crew.end(run) {
            self.no_longer_running(&run);
        }
        self.queued += 1;
        self.deliver(key, job);
        Taken::Waits
    }
}
