//! A run as a stream of what it does.
//!
//! Invariant: pieces come in the order in which they happened, each once; behind the outcome or the error there is nothing. The run
//! goes on only while the stream is polled, so that what nobody takes does not pile up beyond one poll, but for what its present
//! segment logs, which is bounded.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::call::Call;
use crate::error::Error;
use crate::run::Outcome;
use crate::run_options::RunOptions;
use crate::segment::{Log, Segment};
use crate::slot::{block_on, lock};

/// A piece of a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Progress {
    /// The handler has logged something. It comes while the handler runs, before the segment that it belongs to.
    Log(Log),
    /// A segment has ended: its effects have happened.
    Segment(Box<Segment>),
    /// The handler has returned. Nothing comes behind it.
    Done(Box<Outcome>),
}

/// A run that is under way, from [`RunRequest::stream`](crate::RunRequest::stream): a stream of its pieces, or
/// [`next_blocking`](Self::next_blocking). An error is the last of them. Dropping it ends the run.
///
/// ```no_run
/// # use nexus_client::{Client, Error, Progress};
/// # fn example(client: Client) -> Result<(), Error> {
/// let mut running = client.run("$log('one'); return 2").stream();
/// while let Some(piece) = running.next_blocking() {
///     match piece? {
///         Progress::Log(log) => println!("{}: {}", log.level, log.message.escape_debug()),
///         Progress::Done(outcome) => println!("{}", outcome.value::<u32>()?),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping it ends the run"]
pub struct Running {
    /// None: it is over.
    call: Option<Call<Outcome>>,
    told: Told,
    /// To be given out next.
    pieces: VecDeque<Result<Progress, Error>>,
}

/// What a run has told its caller.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told(Arc<Mutex<Vec<Progress>>>);

impl Told {
    /// Is told what the caller's own functions are.
    pub(crate) fn hear(&self, options: &mut RunOptions) {
        let (mut on_segment, mut on_log) = (options.on_segment.take(), options.on_log.take());
        let segments = self.clone();
        options.on_segment = Some(Box::new(move |segment| {
            if let Some(on_segment) = &mut on_segment {
                on_segment(segment);
            }
            segments.push(Progress::Segment(Box::new(segment.clone())));
        }));
        let logs = self.clone();
        options.on_log = Some(Box::new(move |log| {
            if let Some(on_log) = &mut on_log {
                on_log(log.clone());
            }
            logs.push(Progress::Log(log));
        }));
    }

    fn push(&self, piece: Progress) {
        lock(&self.0).push(piece);
    }

    fn take(&self) -> Vec<Progress> {
        std::mem::take(&mut lock(&self.0))
    }
}

impl Running {
    pub(crate) fn new(call: Call<Outcome>, told: Told) -> Self {
        Self { call: Some(call), told, pieces: VecDeque::new() }
    }

    /// The next piece; blocks this thread until it is there. Not for use within an executor's thread.
    pub fn next_blocking(&mut self) -> Option<Result<Progress, Error>> {
        block_on(poll_fn(|context| Pin::new(&mut *self).poll_next(context)))
    }
}

impl Stream for Running {
    type Item = Result<Progress, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(piece) = this.pieces.pop_front() {
            return Poll::Ready(Some(piece));
        }
        let Some(call) = &mut this.call else { return Poll::Ready(None) };
        let polled = Pin::new(call).poll(context);
        this.pieces.extend(this.told.take().into_iter().map(Ok));
        let is_pending = polled.is_pending();
        if let Poll::Ready(result) = polled {
            this.call = None;
            this.pieces.push_back(result.map(|outcome| Progress::Done(Box::new(outcome))));
        }
        match this.pieces.pop_front() {
            Some(piece) => Poll::Ready(Some(piece)),
            None if is_pending => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}
