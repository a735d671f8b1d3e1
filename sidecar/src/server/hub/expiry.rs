//! What is over while nobody works on it: suspensions that wait for too long, and jobs that do.
//!
//! How long an execution may wait says its request, which is read by the worker that runs it. Most never wait for long, so only
//! those that do are read before: [`Hub::expire`] hands them out, once, and [`Hub::wait_until`] takes what they say.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_protocol::message::Kind;

use super::super::incoming::Incoming;
use super::{Held, Holder, Hub, Item, Job, Peer};

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
pub struct Expired<E, P> {
    /// Executions whose suspensions are over, to be dropped.
    #[allow(clippy::vec_box, reason = "they are boxed where they are kept")]
    pub executions: Vec<Box<E>>,
    /// Jobs that waited too long, to be answered.
    pub overdue: Vec<Job<P>>,
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

impl<E: Held, P: Peer> Hub<E, P> {
    pub fn expire(&mut self, now: Instant) -> Expired<E, P> {
        // one that is being parked is looked at again when that is done
        let is_held = |key: &u64| {
            let holder = self.entries.get(key).map(|entry| &entry.holder);
            matches!(holder, Some(Holder::Suspended(_)))
        };
        let over = self.expiring.iter().take_while(|(at, _)| *at <= now).map(|(_, key)| *key);
        let due: Vec<u64> = over.filter(is_held).take(EXPIRED_AT_ONCE).collect();
        let executions = due.into_iter().filter_map(|key| self.end_entry(key)).collect();
        let (overdue, unread) = self.long_waiting(now);
        Expired { executions, overdue, unread }
    }

    /// What has waited too long for a worker, and what has to be read to know that.
    fn long_waiting(&mut self, now: Instant) -> (Vec<Job<P>>, Vec<Unread>) {
        let (mut overdue, mut unread, mut mail) = (Vec::new(), Vec::new(), Vec::new());
        let max = self.limits.max_queue_time.unwrap_or(Duration::MAX);
        for books in self.sessions.values_mut() {
            // not in the order of their waiting: what has waited once stands in front
            books.queue.retain_mut(|item| match item {
                Item::Mail(key) => {
                    mail.push(*key);
                    true
                }
                Item::Job(job) => {
                    let waited = now.saturating_duration_since(job.enqueued);
                    if job.due == Due::Unread && job.kind == Kind::Execute && waited > LONG_WAIT.min(max) {
                        job.due = Due::Never;
                        unread.push(Unread { number: job.number, enqueued: job.enqueued, frame: job.frame.clone() });
                    }
                    let is_overdue = waited > max || matches!(job.due, Due::At(due) if due <= now);
                    if is_overdue {
                        overdue.push(job.clone());
                    }
                    !is_overdue
                }
            });
        }
        overdue.iter().for_each(|_| self.no_longer_queued());
        for key in mail {
            let waits_too_long = |hub: &Self| {
                let entry = hub.entries.get(&key)?;
                let waited = |job: &Job<P>| now.saturating_duration_since(job.enqueued.max(entry.free_since));
                entry.mailbox.iter().position(|job| waited(job) > max)
            };
            while let Some(job) = waits_too_long(self).and_then(|at| self.take_back(key, at)) {
                overdue.push(job);
            }
        }
        if !overdue.is_empty() {
            self.skip_the_empty();
        }
        (overdue, unread)
    }

    /// Until when jobs may wait, by their numbers. Those that wait no more do not matter.
    pub fn wait_until(&mut self, due: &HashMap<u64, Instant>) {
        for item in self.sessions.values_mut().flat_map(|books| &mut books.queue) {
            if let Item::Job(job) = item
                && let Some(at) = due.get(&job.number)
            {
                job.due = Due::At(*at);
            }
        }
    }
}
