//! Many executions, each to its end, extension calls included.
//!
//! Invariants: results come in the order of the items, one each. A result is taken when its part of the answer has come, so that an item
//! that waits for an extension goes on while those behind it run. Where there are extensions each item that was sent has a place to
//! be suspended at, for as long as it may be; the next frame follows when those of the one before it are done. Dropped, it leaves no
//! execution behind.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};

use nexus_protocol::limits::CLIENT_MANY_SUSPENDED;
use nexus_protocol::message::ManyItem;

use super::{Item, all_of, next, put, send};
use crate::compiled::{Handler, says_unknown_handler};
use crate::error::Error;
use crate::extensions::Extensions;
use crate::gather::Gathered;
use crate::link::{Answer, Link, Pending, PlaceHeld, answered};
use crate::run::{Outcome, Run, outcome_of};
use crate::run_options::{OnExtensionError, RunOptions};
use crate::segment::Segment;
use crate::slot::lock;
use crate::told::Status;
use crate::workers::Workers;

type Ended = Result<Outcome, Error>;

/// See the module. A future that is done when all executions are.
pub(crate) struct ManyRun {
    link: Arc<Link>,
    workers: Arc<Workers>,
    options: Common,
    /// Not sent yet.
    items: Vec<Item>,
    /// The request that is under way.
    part: Option<Part>,
    /// Of items that have more to do than the request does.
    runs: Gathered<usize, dyn Future<Output = Ended> + Send>,
    again: Again,
    results: Vec<Option<Ended>>,
}

struct Part {
    pending: Pending,
    /// Those that were not told yet, in order.
    items: VecDeque<Sent>,
}

struct Sent {
    item: Item,
    /// None: nothing can be suspended.
    place: Option<Arc<PlaceHeld>>,
}

/// Items whose compiled handler the sidecar does not know (any more). One goes first: when it is over the handler is known again.
#[derive(Default)]
struct Again {
    first: Option<usize>,
    behind: Vec<Sent>,
}

/// What all runs have in common.
struct Common {
    extensions: Extensions,
    registry: Vec<(String, Vec<String>)>,
    on_extension_error: Option<Arc<Mutex<OnExtensionError>>>,
    labels: BTreeMap<String, String>,
}

impl Common {
    fn of(options: RunOptions) -> Self {
        let RunOptions { extensions, on_extension_error, labels, .. } = options;
        let registry = extensions.registry();
        Self { extensions, registry, on_extension_error: on_extension_error.map(|it| Arc::new(Mutex::new(it))), labels }
    }

    fn may_wait(&self) -> bool {
        !self.registry.is_empty()
    }

    /// Of one of them.
    fn options(&self) -> RunOptions {
        let shared = self.on_extension_error.clone();
        let on_extension_error =
            shared.map(|callback| Box::new(move |error, call: &_| lock(&callback)(error, call)) as OnExtensionError);
        RunOptions {
            extensions: self.extensions.clone(),
            labels: self.labels.clone(),
            on_extension_error,
            ..RunOptions::default()
        }
    }
}

impl ManyRun {
    /// Sends the first of the items at once.
    pub(crate) fn start(link: Arc<Link>, workers: Arc<Workers>, mut items: Vec<Item>, options: RunOptions) -> Self {
        let options = Common::of(options);
        for item in &mut items {
            item.context = std::mem::take(&mut item.context).with_extensions(options.registry.clone());
        }
        let mut results = Vec::new();
        results.resize_with(items.len(), || None);
        let again = Again::default();
        let mut many = Self { link, workers, options, items, part: None, runs: Gathered::new(), again, results };
        many.send_next();
        many
    }

    /// Sends what the next frame is for.
    fn send_next(&mut self) {
        let Self { link, options, items, results, .. } = self;
        let most = if options.may_wait() { items.len().min(CLIENT_MANY_SUSPENDED) } else { items.len() };
        let places = if options.may_wait() { link.places(most) } else { Vec::new() };
        let mut part = next(items, if options.may_wait() { places.len() } else { most });
        let mut common = ManyItem::default();
        let names = options.registry.iter().map(|(name, of)| (name.as_str(), of.iter().map(String::as_str).collect()));
        common.extensions = Some(names.collect());
        let held = places.iter().take(part.len()).cloned().collect();
        let sent = send(link, &mut part, common, held, |at, error| put(results, at, Err(error)));
        match sent {
            Ok(Some(pending)) => {
                let mut places = places.into_iter();
                let items = part.into_iter().map(|item| Sent { item, place: places.next() }).collect();
                self.part = Some(Part { pending, items });
            }
            Ok(None) => {}
            Err(error) => part.iter().for_each(|item| put(results, item.at, Err(error.clone()))),
        }
    }

    /// Takes what has come of the request. Whether anything has.
    fn poll_part(&mut self, context: &mut TaskContext<'_>) -> Result<bool, Error> {
        let Some(part) = &mut self.part else { return Ok(false) };
        let told = self.link.poll_parts(part.pending.id(), context);
        let answer = Pin::new(&mut part.pending).poll(context);
        let mut progress = !told.is_empty();
        told.into_iter().try_for_each(|segment| self.take(segment))?;
        if let Poll::Ready(answer) = answer {
            progress = true;
            let (rest, error) = answered!(answer?, Answer::Results(segments, error) => (segments, error))?;
            rest.into_iter().try_for_each(|segment| self.take(segment))?;
            let untold = self.part.take().map(|part| part.items).unwrap_or_default();
            match error {
                Some(error) => untold.iter().for_each(|sent| put(&mut self.results, sent.item.at, Err(error.clone()))),
                None if untold.is_empty() => {}
                None => return Err(Error::protocol("fewer results than there were items")),
            }
        }
        Ok(progress)
    }

    /// The next one's result.
    fn take(&mut self, segment: Segment) -> Result<(), Error> {
        let Some(sent) = self.part.as_mut().and_then(|part| part.items.pop_front()) else {
            return Err(Error::protocol("more results than there were items"));
        };
        let told = Ok(segment);
        if matches!(sent.item.handler, Handler::Compiled(_)) && says_unknown_handler(&told) {
            if self.again.first.is_some() {
                self.again.behind.push(sent);
            } else {
                self.again.first = Some(sent.item.at);
                self.run_again(sent);
            }
            return Ok(());
        }
        let segment = told?;
        let Sent { item: Item { at, context, .. }, place } = sent;
        if segment.status == Status::Suspended {
            let (link, workers) = (Arc::clone(&self.link), Arc::clone(&self.workers));
            let run = Run::go_on(link, workers, context.names(), segment, self.options.options(), place);
            self.runs.add(at, Box::pin(run));
        } else {
            put(&mut self.results, at, outcome_of(segment));
        }
        Ok(())
    }

    fn run_again(&mut self, Sent { item: Item { at, handler, context }, place }: Sent) {
        let (link, workers) = (Arc::clone(&self.link), Arc::clone(&self.workers));
        match Run::start_at(link, workers, handler, context, self.options.options(), place) {
            Ok(run) => {
                self.runs.add(at, Box::pin(run));
            }
            Err(error) => self.end(at, Err(error)),
        }
    }

    fn end(&mut self, at: usize, ended: Ended) {
        put(&mut self.results, at, ended);
        if self.again.first == Some(at) {
            let behind = std::mem::take(&mut self.again).behind;
            behind.into_iter().for_each(|sent| self.run_again(sent));
        }
    }

    fn poll_runs(&mut self, context: &TaskContext<'_>) -> bool {
        let ended = self.runs.poll(context);
        let any = !ended.is_empty();
        ended.into_iter().for_each(|(at, ended)| self.end(at, ended));
        any
    }
}

impl Future for ManyRun {
    type Output = Result<Vec<Ended>, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let many = self.get_mut();
        loop {
            let mut progress = many.poll_part(context)?;
            progress |= many.poll_runs(context);
            if many.part.is_none() && many.runs.is_empty() {
                if many.items.is_empty() {
                    return Poll::Ready(all_of(std::mem::take(&mut many.results)));
                }
                many.send_next();
            } else if !progress {
                return Poll::Pending;
            }
        }
    }
}
