//! What a handler logs, while it runs.
//!
//! The reader thread brings lists of records before the answer of the request that they belong to; the run hands them on when it is
//! polled. Invariants: records are told in the order of the run's segments, none twice, and those of a segment before it; a segment
//! has all of its own. What nobody has taken yet is bounded: it has to fit a frame, as a segment's logs do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use crate::error::Error;
use crate::payload::PayloadError;
use crate::run_options::OnLog;
use crate::segment::{Segment, logs_of};
use crate::slot::{lock, wake};

/// A request of a run, among those that are heard.
pub(crate) type Heard = u64;

/// Held by what comes over the connection, for one request.
#[derive(Clone)]
pub(crate) struct Ear {
    shared: Arc<Mutex<Shared>>,
    request: Heard,
}

struct Shared {
    /// Not taken yet.
    lists: Vec<(Heard, Vec<u8>)>,
    /// Of those.
    bytes: usize,
    most_bytes: usize,
    waker: Option<Waker>,
    state: State,
}

enum State {
    Heard,
    /// More came than may wait.
    TooMany,
    /// Nobody takes any more.
    Over,
}

impl Ear {
    /// Takes records: MessagePack, a list.
    pub(crate) fn hear(&self, list: &[u8]) {
        let mut shared = lock(&self.shared);
        match shared.state {
            State::Over | State::TooMany => return,
            State::Heard => {}
        }
        shared.bytes = shared.bytes.saturating_add(list.len());
        if shared.bytes > shared.most_bytes {
            shared.state = State::TooMany;
        } else {
            shared.lists.push((self.request, list.to_vec()));
        }
        let waker = shared.waker.take();
        drop(shared);
        if let Some(waker) = waker {
            wake(waker);
        }
    }
}

/// The run's half.
pub(crate) struct LiveLogs {
    on_log: OnLog,
    shared: Arc<Mutex<Shared>>,
    last: Heard,
    /// Of requests whose segment has not come yet.
    requests: HashMap<Heard, Lists>,
}

#[derive(Default)]
struct Lists {
    all: Vec<Vec<u8>>,
    /// So many of them were told.
    told: usize,
}

impl LiveLogs {
    pub(crate) fn new(on_log: OnLog, most_bytes: usize) -> Self {
        let shared = Shared { lists: Vec::new(), bytes: 0, most_bytes, waker: None, state: State::Heard };
        Self { on_log, shared: Arc::new(Mutex::new(shared)), last: 0, requests: HashMap::new() }
    }

    /// For one request more.
    pub(crate) fn ear(&mut self) -> (Heard, Ear) {
        self.last += 1;
        (self.last, Ear { shared: Arc::clone(&self.shared), request: self.last })
    }

    /// Takes what has come. Behind the look for answers: what was logged came before them.
    pub(crate) fn take(&mut self, context: &Context<'_>) -> Result<(), Error> {
        // Wakers are cloned and dropped outside of the lock: they are the caller's code.
        let waker = context.waker().clone();
        let mut shared = lock(&self.shared);
        let lists = std::mem::take(&mut shared.lists);
        shared.bytes = 0;
        let before = shared.waker.replace(waker);
        let is_whole = !matches!(shared.state, State::TooMany);
        drop(shared);
        drop(before);
        for (request, list) in lists {
            self.requests.entry(request).or_default().all.push(list);
        }
        if is_whole { Ok(()) } else { Err(Error::protocol("logs that nobody has taken fit no frame")) }
    }

    /// Tells what is new of the request that alone is unanswered. With others unanswered, what the segment before has logged may
    /// still come.
    pub(crate) fn tell_of(&mut self, request: Heard) -> Result<(), PayloadError> {
        let Some(lists) = self.requests.get_mut(&request) else { return Ok(()) };
        let news = lists.told;
        lists.told = lists.all.len();
        lists.all.iter().skip(news).try_for_each(|list| tell(&mut self.on_log, list))
    }

    /// A segment in its turn: it gets what was heard of its request, and what of it was not told yet is.
    pub(crate) fn tell_rest(&mut self, request: Heard, segment: &mut Segment) -> Result<(), PayloadError> {
        let Lists { all, told } = self.requests.remove(&request).unwrap_or_default();
        let heard = all.iter().skip(told).try_for_each(|list| tell(&mut self.on_log, list));
        heard.and_then(|()| tell(&mut self.on_log, segment.last_logs()))?;
        segment.put_logs_before(all);
        Ok(())
    }
}

fn tell(on_log: &mut OnLog, list: &[u8]) -> Result<(), PayloadError> {
    logs_of(list)?.into_iter().for_each(on_log);
    Ok(())
}

impl Drop for LiveLogs {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        shared.state = State::Over;
        let left = (std::mem::take(&mut shared.lists), shared.waker.take());
        drop(shared);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use nexus_protocol::EffectList;
    use nexus_protocol::message::{SegmentResult, Status};

    use super::*;

    fn list(messages: &[&str]) -> Vec<u8> {
        let mut logs = EffectList::new();
        messages.iter().for_each(|message| logs.push_log("info", message, 1.0));
        logs.payload().unwrap_or_default().to_vec()
    }

    fn segment(messages: &[&str]) -> Segment {
        let logs = list(messages);
        let mut result = SegmentResult::new(Status::Success, 0);
        result.logs = (!messages.is_empty()).then_some(&logs[..]);
        Segment::of(result)
    }

    fn messages(segment: &Segment) -> Vec<String> {
        segment.logs().unwrap().into_iter().map(|log| log.message).collect()
    }

    struct Told(Arc<Mutex<Vec<String>>>, LiveLogs);

    impl Told {
        fn new() -> Self {
            let told = Arc::<Mutex<Vec<String>>>::default();
            let heard = Arc::clone(&told);
            Self(told, LiveLogs::new(Box::new(move |log| lock(&heard).push(log.message)), 4_000))
        }

        fn taken(&self) -> Vec<String> {
            std::mem::take(&mut lock(&self.0))
        }
    }

    #[test]
    fn records_are_told_once_in_the_order_of_segments_which_have_them_all() {
        let mut told = Told::new();
        let context = Context::from_waker(Waker::noop());
        let (first, ear) = told.1.ear();
        ear.hear(&list(&["a", "b"]));
        told.1.take(&context).unwrap();
        told.1.tell_of(first).unwrap();
        assert_eq!(told.taken(), ["a", "b"]);
        ear.hear(&list(&["c"]));
        told.1.take(&context).unwrap();
        let (second, later) = told.1.ear();
        // of the segment behind, before the first has come
        later.hear(&list(&["e"]));
        told.1.take(&context).unwrap();
        let mut one = segment(&["d"]);
        told.1.tell_rest(first, &mut one).unwrap();
        assert_eq!(told.taken(), ["c", "d"]);
        assert_eq!(messages(&one), ["a", "b", "c", "d"]);
        let mut two = segment(&[]);
        told.1.tell_rest(second, &mut two).unwrap();
        assert_eq!((told.taken(), messages(&two)), (vec!["e".to_owned()], vec!["e".to_owned()]));
        assert!(told.1.requests.is_empty());
    }

    #[test]
    fn who_waits_is_woken_and_a_list_that_is_none_is_told() {
        #[derive(Default)]
        struct Wakes(AtomicUsize);
        impl Wake for Wakes {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut told = Told::new();
        told.1.take(&Context::from_waker(&waker)).unwrap();
        let (request, ear) = told.1.ear();
        ear.hear(b"\xc1");
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        told.1.take(&Context::from_waker(&waker)).unwrap();
        assert!(told.1.tell_of(request).is_err());
    }

    #[test]
    fn what_nobody_takes_is_bounded_and_goes_with_the_run() {
        let mut told = Told::new();
        let (_, ear) = told.1.ear();
        let large = vec![0; 1_000];
        let context = Context::from_waker(Waker::noop());
        (0..4).for_each(|_| ear.hear(&large));
        told.1.take(&context).unwrap();
        (0..5).for_each(|_| ear.hear(&large));
        assert_eq!(lock(&ear.shared).lists.len(), 4);
        assert!(told.1.take(&context).is_err());
        let mut told = Told::new();
        let (_, ear) = told.1.ear();
        ear.hear(&large);
        let Told(_, logs) = told;
        drop(logs);
        ear.hear(&large);
        assert!(lock(&ear.shared).lists.is_empty());
    }
}
