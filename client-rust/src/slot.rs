//! A place for one value that another thread brings, and the way to wait for it.
//!
//! Invariants: a value put into a slot is taken at most once; whoever waits is woken once it is there; a waker's code runs
//! under no lock, and its panic ends nobody's thread. No executor is needed: [`block_on`] parks the calling thread.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

/// Locks, whatever happened to another holder: no lock of this crate is held across a caller's code.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes. A waker is a caller's code: a panic in it is that caller's, and neither the thread's that woke it nor anybody's
/// who is woken behind it.
pub(crate) fn wake(waker: Waker) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
        // The value of a panic is a caller's too: dropping it may panic.
        std::mem::forget(panic);
        // And so is the logger.
        let _ = catch_unwind(|| log::error!("a waker panicked: the task that it belongs to may wait for ever"));
    }
}

enum State<T> {
    Waiting(Option<Waker>),
    Ready(T),
    Taken,
}

/// See the module.
pub(crate) struct Slot<T>(Mutex<State<T>>);

impl<T> Slot<T> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State::Waiting(None))))
    }

    /// Brings the value. It comes back when nobody will take it: there was one before, or the slot was abandoned.
    pub(crate) fn fill(&self, value: T) -> Option<T> {
        let mut state = lock(&self.0);
        let State::Waiting(waker) = &mut *state else { return Some(value) };
        let waker = waker.take();
        *state = State::Ready(value);
        drop(state);
        if let Some(waker) = waker {
            wake(waker);
        }
        None
    }

    /// Says that nobody waits any more. Returns the value if it was there already.
    pub(crate) fn abandon(&self) -> Option<T> {
        // Not matched in one statement: what is dropped, a waker among it, is dropped without the lock.
        let before = std::mem::replace(&mut *lock(&self.0), State::Taken);
        match before {
            State::Ready(value) => Some(value),
            State::Waiting(_) | State::Taken => None,
        }
    }

    /// Takes the value, or asks to be woken when it comes.
    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<T> {
        if let Some(result) = self.look(context) {
            return result;
        }
        // A caller's waker is cloned and dropped without the lock.
        let mut new = Some(context.waker().clone());
        let mut state = lock(&self.0);
        if let State::Waiting(waker) = &mut *state {
            std::mem::swap(waker, &mut new);
            return Poll::Pending;
        }
        drop(state);
        self.look(context).unwrap_or(Poll::Pending)
    }

    /// The value, or that nothing more is to be done. None: the waker is not known here.
    fn look(&self, context: &Context<'_>) -> Option<Poll<T>> {
        let mut state = lock(&self.0);
        match &*state {
            State::Waiting(Some(known)) if known.will_wake(context.waker()) => return Some(Poll::Pending),
            State::Waiting(_) => return None,
            State::Taken => return Some(Poll::Pending),
            State::Ready(_) => {}
        }
        match std::mem::replace(&mut *state, State::Taken) {
            State::Ready(value) => Some(Poll::Ready(value)),
            State::Waiting(_) | State::Taken => Some(Poll::Pending),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread until it is done.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_wakes_whoever_waits_and_is_taken_once() {
        let slot = Slot::new();
        let filler = Arc::clone(&slot);
        let thread = thread::spawn(move || {
            assert_eq!(filler.fill(1), None);
            assert_eq!(filler.fill(2), Some(2));
        });
        assert_eq!(block_on(std::future::poll_fn(|context| slot.poll(context))), 1);
        thread.join().unwrap();
        assert_eq!(slot.abandon(), None);
    }

    #[test]
    fn an_abandoned_slot_gives_the_value_back() {
        let slot = Slot::new();
        assert_eq!(slot.abandon(), None);
        assert_eq!(slot.fill(3), Some(3));
        let slot = Slot::new();
        assert_eq!(slot.fill(4), None);
        assert_eq!(slot.abandon(), Some(4));
    }

    #[test]
    fn a_waker_that_panics_is_its_own_tasks_trouble() {
        struct Bomb;
        impl Wake for Bomb {
            fn wake(self: Arc<Self>) {
                // A panic whose value panics again when it is dropped.
                std::panic::panic_any(Fuse);
            }
        }
        struct Fuse;
        impl Drop for Fuse {
            fn drop(&mut self) {
                panic!("expected by the test");
            }
        }
        let slot = Slot::new();
        let waker = Waker::from(Arc::new(Bomb));
        assert!(slot.poll(&Context::from_waker(&waker)).is_pending());
        assert_eq!(slot.fill(5), None);
        assert_eq!(slot.poll(&Context::from_waker(&waker)), Poll::Ready(5));
    }

    #[test]
    fn a_waker_may_use_its_slot() {
        struct Curious(Arc<Slot<u32>>, Mutex<Option<u32>>);
        impl Wake for Curious {
            fn wake(self: Arc<Self>) {
                *lock(&self.1) = self.0.abandon();
            }
        }
        let slot = Slot::new();
        let curious = Arc::new(Curious(Arc::clone(&slot), Mutex::new(None)));
        let waker = Waker::from(Arc::clone(&curious));
        assert!(slot.poll(&Context::from_waker(&waker)).is_pending());
        slot.fill(6);
        assert_eq!(*lock(&curious.1), Some(6));
    }

    #[test]
    fn many_slots_filled_in_any_order_all_arrive() {
        let slots: Vec<_> = (0..200).map(|_| Slot::new()).collect();
        let fillers = slots.clone();
        let thread = thread::spawn(move || {
            for (value, slot) in fillers.iter().enumerate().rev() {
                assert_eq!(slot.fill(value), None);
            }
        });
        for (expected, slot) in slots.iter().enumerate() {
            assert_eq!(block_on(std::future::poll_fn(|context| slot.poll(context))), expected);
        }
        thread.join().unwrap();
    }
}
