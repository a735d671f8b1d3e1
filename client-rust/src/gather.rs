//! Futures that are polled when they were woken, and not whenever one of the others was.
//!
//! A run has as many of them as its handler has calls outstanding; to poll all of them for each that is done would take a time
//! that grows with the square of their number. Invariant: what is added is polled at the next poll.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use crate::slot::{self, lock};

/// See the module. `T` is what each is for.
pub(crate) struct Gathered<T, F: ?Sized> {
    places: Vec<Option<Member<T, F>>>,
    free: Vec<usize>,
    woken: Arc<Woken>,
}

struct Member<T, F: ?Sized> {
    about: T,
    future: Pin<Box<F>>,
    signal: Arc<Signal>,
}

/// Those that were woken since the last poll, and who is to be told of that.
#[derive(Default)]
struct Woken(Mutex<(Vec<Arc<Signal>>, Option<Waker>)>);

/// By which one future is woken.
struct Signal {
    place: usize,
    /// Whether it is among the woken.
    is_woken: AtomicBool,
    woken: Arc<Woken>,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        if self.is_woken.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut woken = lock(&self.woken.0);
        woken.0.push(Arc::clone(&self));
        let waker = woken.1.take();
        drop(woken);
        if let Some(waker) = waker {
            slot::wake(waker);
        }
    }
}

impl<T, F: Future + ?Sized> Gathered<T, F> {
    pub(crate) fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new(), woken: Arc::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.len() == self.free.len()
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }

    /// Its place, which is another's once it is done.
    pub(crate) fn add(&mut self, about: T, future: Pin<Box<F>>) -> usize {
        let place = self.free.pop().unwrap_or(self.places.len());
        let signal = Arc::new(Signal { place, is_woken: AtomicBool::new(false), woken: Arc::clone(&self.woken) });
        Arc::clone(&signal).wake();
        let member = Some(Member { about, future, signal });
        match self.places.get_mut(place) {
            Some(free) => *free = member,
            None => self.places.push(member),
        }
        place
    }

    /// What stands at a place.
    pub(crate) fn at(&self, place: usize) -> Option<&T> {
        self.places.get(place)?.as_ref().map(|member| &member.about)
    }

    /// Gives up what stands at a place.
    pub(crate) fn remove(&mut self, place: usize) -> Option<T> {
        let member = self.places.get_mut(place)?.take()?;
        self.free.push(place);
        Some(member.about)
    }

    /// What those are for that are not done.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().flatten().map(|member| &member.about)
    }

    /// Takes out what is done.
    pub(crate) fn poll(&mut self, context: &Context<'_>) -> Vec<(T, F::Output)> {
        // Wakers are cloned and dropped outside of the lock: they are the caller's code.
        let waker = context.waker().clone();
        let mut told = lock(&self.woken.0);
        let woken = std::mem::take(&mut told.0);
        let before = told.1.replace(waker);
        drop(told);
        drop(before);
        let mut done = Vec::new();
        for signal in woken {
            // Before the poll: what wakes it during that counts.
            signal.is_woken.store(false, Ordering::Release);
            let Some(place) = self.places.get_mut(signal.place) else { continue };
            // The place may be another's by now.
            let Some(member) = place.as_mut().filter(|member| Arc::ptr_eq(&member.signal, &signal)) else { continue };
            let waker = Waker::from(Arc::clone(&signal));
            if let Poll::Ready(output) = member.future.as_mut().poll(&mut Context::from_waker(&waker))
                && let Some(member) = place.take()
            {
                self.free.push(signal.place);
                done.push((member.about, output));
            }
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::slot::Slot;

    type Future = dyn std::future::Future<Output = u32> + Send;

    /// Counts how often it is polled.
    fn counted(slot: &Arc<Slot<u32>>, polls: &Arc<AtomicUsize>) -> Pin<Box<Future>> {
        let (slot, polls) = (Arc::clone(slot), Arc::clone(polls));
        Box::pin(std::future::poll_fn(move |context| {
            polls.fetch_add(1, Ordering::Relaxed);
            slot.poll(context)
        }))
    }

    #[test]
    fn only_what_was_woken_is_polled_and_each_is_taken_out_once() {
        const MANY: u32 = 500;
        let polls = Arc::new(AtomicUsize::new(0));
        let mut gathered: Gathered<u32, Future> = Gathered::new();
        let slots: Vec<Arc<Slot<u32>>> = (0..MANY).map(|_| Slot::new()).collect();
        for (number, slot) in (0..).zip(&slots) {
            gathered.add(number, counted(slot, &polls));
        }
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let context = Context::from_waker(&waker);
        assert!(gathered.poll(&context).is_empty());
        for (number, slot) in (0..MANY).zip(&slots).rev() {
            assert!(slot.fill(number * 2).is_none());
            assert_eq!(gathered.poll(&context), [(number, number * 2)]);
        }
        assert!(gathered.is_empty() && gathered.poll(&context).is_empty());
        assert_eq!(wakes.0.load(Ordering::Relaxed), MANY as usize);
        assert_eq!(polls.load(Ordering::Relaxed), 2 * MANY as usize, "each when it was added and when it was woken");
    }

    #[test]
    fn a_wake_that_comes_late_is_not_taken_for_another_ones() {
        let polls = Arc::new(AtomicUsize::new(0));
        let mut gathered: Gathered<u32, Future> = Gathered::new();
        let context = Context::from_waker(Waker::noop());
        let kept = Arc::new(Mutex::new(None));
        let taken = Arc::clone(&kept);
        gathered.add(
            1,
            Box::pin(std::future::poll_fn(move |context: &mut Context<'_>| {
                *lock(&taken) = Some(context.waker().clone());
                Poll::Ready(1)
            })),
        );
        assert_eq!(gathered.poll(&context), [(1, 1)]);
        let slot = Slot::new();
        gathered.add(2, counted(&slot, &polls));
        assert!(gathered.poll(&context).is_empty());
        lock(&kept).take().unwrap().wake();
        assert!(gathered.poll(&context).is_empty());
        assert_eq!(polls.load(Ordering::Relaxed), 1);
        assert_eq!(gathered.iter().copied().collect::<Vec<_>>(), [2]);
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}
