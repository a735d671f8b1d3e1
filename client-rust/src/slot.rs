//! A place for one value that another thread brings, and the way to wait for it.
//!
//! Invariant: a value put into a slot is taken at most once; whoever waits is woken once it is there. No executor is
//! needed: [`block_on`] parks the calling thread.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

/// Locks, whatever happened to another holder: no lock of this crate is held across a caller's code.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            waker.wake();
        }
        None
    }

    /// Says that nobody waits any more. Returns the value if it was there already.
    pub(crate) fn abandon(&self) -> Option<T> {
        match std::mem::replace(&mut *lock(&self.0), State::Taken) {
            State::Ready(value) => Some(value),
            State::Waiting(_) | State::Taken => None,
        }
    }

    /// Takes the value, or asks to be woken when it comes.
    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<T> {
        let mut state = lock(&self.0);
        match &mut *state {
            State::Waiting(waker) => {
                match waker {
                    Some(known) if known.will_wake(context.waker()) => {}
                    other => *other = Some(context.waker().clone()),
                }
                return Poll::Pending;
            }
            State::Taken => return Poll::Pending,
            State::Ready(_) => {}
        }
        match std::mem::replace(&mut *state, State::Taken) {
            State::Ready(value) => Poll::Ready(value),
            State::Waiting(_) | State::Taken => Poll::Pending,
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
