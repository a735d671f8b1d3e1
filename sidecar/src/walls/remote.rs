//! A server in another process, as the supervisor knows it.
//!
//! Nothing here waits for the worker without a limit: commands go out from a thread of their own, and answers come in to
//! another. At most one question is open at a time, so that a worker that does not answer is not sent more and more of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nexus_protocol::limits::WORKER_ANSWER_MS;

use super::page::Page;
use super::words::{Command, Question, Said};
use crate::config::Config;
use crate::lifecycle::Served;
use crate::sealed::Walls;
use crate::server::Pulse;

/// What is asked takes no time to answer; a worker that takes longer is stopped, or its machine is busy.
const LONG_PATIENCE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_millis(WORKER_ANSWER_MS);

/// How far a worker has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Starting,
    Attached,
    /// Which parts of its seal hold.
    Ready(u64),
    Gone,
}

#[derive(Debug)]
struct Heard {
    stage: Stage,
    /// Of the last question.
    asked: u64,
    answer: Option<[u64; 3]>,
    /// What was said that made no sense.
    garbage: u64,
}

/// See the module.
pub struct Remote {
    heard: Mutex<Heard>,
    changed: Condvar,
    /// Whoever holds it asks.
    asking: Mutex<()>,
    commands: Mutex<Sender<Command>>,
    page: Arc<Page>,
    draining: AtomicBool,
    stuck: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Remote {
    pub fn new(commands: Sender<Command>, page: Arc<Page>) -> Self {
        let heard = Heard { stage: Stage::Starting, asked: 0, answer: None, garbage: 0 };
        Self {
            heard: Mutex::new(heard),
            changed: Condvar::new(),
            asking: Mutex::new(()),
            commands: Mutex::new(commands),
            page,
            draining: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
        }
    }

    /// Takes in what the worker says.
    pub fn hear(&self, said: Option<Said>) {
        let mut heard = lock(&self.heard);
        match (said, heard.stage) {
            (Some(Said::Attached), Stage::Starting) => heard.stage = Stage::Attached,
            (Some(Said::Ready { walls }), Stage::Attached) => heard.stage = Stage::Ready(walls),
            (Some(Said::Answer { number, values }), Stage::Ready(_)) if number == heard.asked => {
                heard.answer = Some(values);
            }
            // of a question that nobody waits for any more
            (Some(Said::Answer { number, .. }), Stage::Ready(_)) if number < heard.asked => {}
            _ => {
                heard.garbage += 1;
                if heard.garbage == 1 {
                    log::error!("a worker says what makes no sense; it is passed over (said once)");
                }
            }
        }
        self.changed.notify_all();
    }

    pub fn is_gone(&self) {
        lock(&self.heard).stage = Stage::Gone;
        self.changed.notify_all();
    }

    pub fn is_gone_for_good(&self) -> bool {
        lock(&self.heard).stage == Stage::Gone
    }

    /// Waits until the worker has come further than that, or that time is over. Where it is.
    pub fn after(&self, stage: Stage, patience: Duration) -> Stage {
        let heard = lock(&self.heard);
        let waits = |heard: &mut Heard| heard.stage == stage;
        self.changed.wait_timeout_while(heard, patience, waits).unwrap_or_else(PoisonError::into_inner).0.stage
    }

    /// How many connections the worker says that it has taken.
    pub fn taken(&self) -> u64 {
        self.page.taken()
    }

    pub fn command(&self, command: Command) {
        // without a worker there is nobody to command, and its end is known by then
        let _ = lock(&self.commands).send(command);
    }

    /// Has a configuration put in force. Returns when it is, or when that takes too long.
    pub fn reload(&self, config: &Config) {
        self.command(Command::Reload(Box::new(config.clone())));
        // what is asked behind it is answered when that is done
        if self.ask(Question::Pulse, LONG_PATIENCE).is_none() {
            log::warn!("the worker has not taken the configuration yet");
        }
    }

    /// None: no answer in time, or none to the last question yet.
    fn ask(&self, question: Question, patience: Duration) -> Option<[u64; 3]> {
        let until = Instant::now() + patience;
        let _asking = lock(&self.asking);
        let mut heard = lock(&self.heard);
        let unanswered = heard.asked > 0 && heard.answer.is_none();
        if unanswered {
            // it may still come; a new question would only wait behind it
            heard = self.wait(heard, until);
            heard.answer?;
        }
        heard.asked += 1;
        heard.answer = None;
        self.command(Command::Ask { number: heard.asked, question });
        self.wait(heard, until).answer
    }

    /// Whether the worker has answered what it was asked last, and says that no run of it is stuck. Asks it the next thing, and
    /// waits for nothing: the answer is for the next look.
    pub fn has_answered(&self) -> bool {
        // whoever asks meanwhile waits for no longer than an answer may take
        let Ok(_asking) = self.asking.try_lock() else { return lock(&self.heard).answer.is_some() };
        let mut heard = lock(&self.heard);
        if heard.asked > 0 && heard.answer.is_none() {
            return false;
        }
        let moves = !matches!(heard.answer, Some([_, _, stuck]) if stuck != 0);
        heard.asked += 1;
        heard.answer = None;
        self.command(Command::Ask { number: heard.asked, question: Question::Pulse });
        moves
    }

    fn wait<'a>(&'a self, heard: MutexGuard<'a, Heard>, until: Instant) -> MutexGuard<'a, Heard> {
        let left = until.saturating_duration_since(Instant::now());
        let waits = |heard: &mut Heard| heard.answer.is_none() && heard.stage != Stage::Gone;
        self.changed.wait_timeout_while(heard, left, waits).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Served for Remote {
    fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.command(Command::Drain);
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    fn prod(&self) {
        self.command(Command::Prod);
    }

    fn pulse(&self) -> Option<Pulse> {
        let [polls, ticks, stuck] = self.ask(Question::Pulse, PATIENCE)?;
        self.stuck.store(stuck != 0, Ordering::Release);
        Some(Pulse { polls, ticks })
    }

    fn has_stuck_run(&self) -> bool {
        self.stuck.load(Ordering::Acquire)
    }

    fn is_alive(&self, patience: Duration) -> bool {
        matches!(self.ask(Question::Alive, patience + PATIENCE), Some([1, ..]))
    }

    fn prometheus(&self) -> Option<String> {
        let [len, ..] = self.ask(Question::Metrics, PATIENCE)?;
        self.page.text(len)
    }

    fn is_ready(&self) -> bool {
        let serves = matches!(lock(&self.heard).stage, Stage::Ready(_));
        // one that stands still takes nobody
        serves && self.ask(Question::Pulse, LONG_PATIENCE).is_some()
    }

    fn walls(&self) -> String {
        match lock(&self.heard).stage {
            Stage::Ready(walls) => {
                let walls = Walls::from_bits(walls);
                let missing = walls.missing().map(|missing| format!("; missing: {missing}")).unwrap_or_default();
                format!("behind {walls}{missing}")
            }
            _ => "which is not there".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::random::Random;

    #[test]
    fn a_worker_that_says_anything_at_any_time_neither_answers_for_itself_nor_ends_the_supervisor() {
        let mut random = Random(7);
        for _ in 0..200 {
            let (commands, given) = mpsc::channel();
            let remote = Arc::new(Remote::new(commands, Arc::new(Page::new().unwrap())));
            remote.hear(Some(Said::Attached));
            remote.hear(Some(Said::Ready { walls: random.next() }));
            for _ in 0..random.below(200) {
                remote.hear(match random.below(5) {
                    0 => None,
                    1 => Some(Said::Attached),
                    2 => Some(Said::Ready { walls: random.next() }),
                    _ => Some(Said::Answer { number: random.next() >> random.below(64), values: [random.next(); 3] }),
                });
            }
            assert_eq!(remote.pulse(), None, "nothing of that was an answer to a question");
            let Ok(Command::Ask { number, .. }) = given.try_recv() else { panic!("it was not asked") };
            remote.hear(Some(Said::Answer { number, values: [1, 2, 0] }));
            // the next question is asked when the last one is answered, and its text may have any length
            let asker = std::thread::spawn({
                let remote = remote.clone();
                move || remote.prometheus()
            });
            let Ok(Command::Ask { number, .. }) = given.recv() else { panic!("it was not asked") };
            remote.hear(Some(Said::Answer { number, values: [u64::MAX >> random.below(40), 0, 0] }));
            let _ = asker.join().unwrap();
            remote.is_gone();
            assert!(!remote.is_alive(Duration::from_secs(60)) && given.try_recv().is_ok());
        }
    }
}
