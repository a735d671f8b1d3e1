//! Wakes tasks at a given time, whatever executor they are on.
//!
//! One thread for all clients of the process, made when an alarm is set, gone when it finds none. Invariants: an alarm wakes
//! once, unless it is dropped before; a waker's code runs under no lock. The thread is told of a new alarm only where it would
//! sleep beyond it: who sets and drops alarms that are all as far away, one after another, wakes nobody.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::task::Waker;
use std::thread;
use std::time::Instant;

use crate::slot::{lock, wake};

/// By when it is due; the number tells those apart that are due together.
type Key = (Instant, u64);

struct Alarms {
    set: BTreeMap<Key, Waker>,
    last: u64,
    /// When the thread looks again; `None`: there is no thread.
    looks_at: Option<Instant>,
}

static ALARMS: Mutex<Alarms> = Mutex::new(Alarms { set: BTreeMap::new(), last: 0, looks_at: None });
static SOONER: Condvar = Condvar::new();

/// See the module. Dropped, it wakes nobody.
pub(crate) struct Alarm(Key);

impl Alarm {
    pub(crate) fn at(due: Instant, waker: &Waker) -> Self {
        let mut alarms = lock(&ALARMS);
        alarms.last += 1;
        let key = (due, alarms.last);
        alarms.set.insert(key, waker.clone());
        match alarms.looks_at {
            Some(at) if at <= due => {}
            Some(_) => {
                alarms.looks_at = Some(due);
                SOONER.notify_one();
            }
            // With no thread to be had, the next alarm tries again.
            None => {
                let spawned = thread::Builder::new().name("nexus-alarm".to_owned()).spawn(work);
                alarms.looks_at = spawned.is_ok().then_some(due);
            }
        }
        Self(key)
    }

    pub(crate) fn due(&self) -> Instant {
        self.0.0
    }

    /// Wakes this one in place of the one before, unless it has been woken.
    pub(crate) fn wakes(&self, waker: &Waker) {
        let mut alarms = lock(&ALARMS);
        let before = match alarms.set.get_mut(&self.0) {
            Some(known) if !known.will_wake(waker) => Some(std::mem::replace(known, waker.clone())),
            _ => None,
        };
        // A waker is a caller's code: what it does when it is dropped, it does without the lock.
        drop(alarms);
        drop(before);
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // In two statements, for the same reason.
        let waker = lock(&ALARMS).set.remove(&self.0);
        drop(waker);
    }
}

fn work() {
    let mut alarms = lock(&ALARMS);
    loop {
        let now = Instant::now();
        while let Some(first) = alarms.set.first_entry().filter(|first| first.key().0 <= now) {
            let waker = first.remove();
            drop(alarms);
            wake(waker);
            alarms = lock(&ALARMS);
        }
        alarms.looks_at = alarms.set.first_key_value().map(|((due, _), _)| *due);
        let Some(at) = alarms.looks_at else { return };
        let sleep = at.saturating_duration_since(Instant::now());
        (alarms, _) = SOONER.wait_timeout(alarms, sleep).unwrap_or_else(PoisonError::into_inner);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Poll, Wake};
    use std::time::Duration;

    use super::*;
    use crate::slot::block_on;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn sleep(time: Duration) {
        let due = Instant::now() + time;
        let mut alarm = None;
        block_on(poll_fn(|context| {
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            alarm.get_or_insert_with(|| Alarm::at(due, context.waker())).wakes(context.waker());
            Poll::Pending
        }));
    }

    #[test]
    fn each_wakes_its_own_task_also_one_that_is_due_before_all_others() {
        let count = Arc::new(Count::default());
        let far = Alarm::at(Instant::now() + Duration::from_secs(3600), &Arc::clone(&count).into());
        let started = Instant::now();
        let threads = [30, 10, 20].map(|ms| thread::spawn(move || sleep(Duration::from_millis(ms))));
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(started.elapsed() >= Duration::from_millis(30));
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        assert!(far.due() > Instant::now());
    }

    #[test]
    fn one_that_is_dropped_or_given_another_waker_does_not_wake_the_first() {
        let [first, second] = [0, 1].map(|_| Arc::new(Count::default()));
        let due = Instant::now() + Duration::from_millis(20);
        let dropped = Alarm::at(due, &Arc::clone(&first).into());
        let kept = Alarm::at(due, &Arc::clone(&first).into());
        kept.wakes(&Arc::clone(&second).into());
        drop(dropped);
        while second.0.load(Ordering::SeqCst) == 0 {
            sleep(Duration::from_millis(1));
        }
        assert_eq!((first.0.load(Ordering::SeqCst), second.0.load(Ordering::SeqCst)), (0, 1));
    }
}
