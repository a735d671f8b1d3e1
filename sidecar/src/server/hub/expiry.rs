//! What is over while nobody works on it: suspensions that wait for too long, and jobs that do.
//!
//! How long an execution may wait says its request, which is read by the worker that runs it. Most never wait for long, so only
//! those that do are read before: [`Hub::expire`] hands them out, once, and [`Hub::wait_until`] takes what they say.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_protocol::message::Kind;

use super::super::incoming::Incoming;
use super::sessions::Books;
use super::{Entry, Held, Holder, Hub, Job};

/// A job that has waited for so long is read.
const LONG_WAIT: Duration = Duration::from_millis(20);

/// When the time of a job is used up before it has begun; `maxQueueMs` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Its request has not been read.
    Unread,
    /// Its request is being read, or sets no time.
    Never,
    At(Instant),
}

/// What [`Hub::expire`] has found.
pub struct Expired<E> {
    /// Executions whose suspensions are over, to be dropped.
    #[allow(clippy::vec_box, reason = "they are boxed where they are kept")]
    pub executions: Vec<Box<E>>,
    /// Jobs that waited too long, to be answered.
    pub overdue: Vec<Job>,
    /// Jobs that wait for long, to be read.
    pub unread: Vec<Unread>,
}

/// A job that is still in the queue.
pub struct Unread {
    pub number: u64,
    pub enqueued: Instant,
    pub frame: Arc<Incoming>,
}

/// Executions that expire at one look, so that no look takes long; the others do at the next.
const EXPIRED_AT_ONCE: usize = 256;

impl<E: Held> Hub<E> {
    pub fn expire(&mut self, now: Instant) -> Expired<E> {
        // one that is being parked is looked at again when that is done
        let is_held = |key: &u64| matches!(self.entries.get(key), Some(Entry { holder: Holder::Suspended(_), .. }));
        let over = self.expiring.iter().take_while(|(at, _)| *at <= now).map(|(_, key)| *key);
        let due: Vec<u64> = over.filter(is_held).take(EXPIRED_AT_ONCE).collect();
        let executions = due.into_iter().filter_map(|key| self.end_entry(key)).collect();
        let (mut overdue, mut unread) = (Vec::new(), Vec::new());
        let max = self.limits.max_queue_time.unwrap_or(Duration::MAX);
        for Books { queue, .. } in self.sessions.values_mut() {
            let mut at = 0;
            while let Some(job) = queue.get_mut(at) {
                let waited = now.saturating_duration_since(job.enqueued);
                if waited <= LONG_WAIT.min(max) {
                    // those behind it came later
                    break;
                }
                if job.due == Due::Unread && job.kind == Kind::Execute {
                    job.due = Due::Never;
                    unread.push(Unread { number: job.number, enqueued: job.enqueued, frame: job.frame.clone() });
                }
                if waited > max || matches!(job.due, Due::At(due) if due <= now) {
                    let Some(job) = queue.remove(at) else { break };
                    self.queued -= 1;
                    self.queued_bytes -= job.bytes();
                    overdue.push(job);
                } else {
                    at += 1;
                }
            }
        }
        if !overdue.is_empty() {
            let sessions = &self.sessions;
            self.turn.retain(|s| sessions.get(s).is_some_and(|books| !books.queue.is_empty()));
        }
        Expired { executions, overdue, unread }
    }

    /// Until when jobs may wait, by their numbers. Those that wait no more do not matter.
    pub fn wait_until(&mut self, due: &HashMap<u64, Instant>) {
        for job in self.sessions.values_mut().flat_map(|books| &mut books.queue) {
            if let Some(at) = due.get(&job.number) {
                job.due = Due::At(*at);
            }
        }
    }
}
