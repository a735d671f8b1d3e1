//! Many executions, each to its first suspension or its end.
//!
//! Invariant: results come in the order of the items, one each. Of items whose request failed, those that were told before have their
//! results all the same.

use std::future::Future;
use std::sync::Arc;

use nexus_protocol::message::ManyItem;

use super::{Item, MISSING, all_of, next, put, send};
use crate::compiled::{Handler, says_unknown_handler};
use crate::error::Error;
use crate::execution::{Sending, start_execution};
use crate::held::Held;
use crate::link::{Answer, Link, Pending, answered};
use crate::segment::Segment;
use crate::slot::Slot;

type Results = Vec<Result<Segment, Error>>;

/// Sends the first of the items at once.
pub(crate) fn execute(
    link: Arc<Link>,
    held: Arc<Held>,
    mut items: Vec<Item>,
) -> impl Future<Output = Result<Results, Error>> + Send + use<> {
    let mut results: Vec<Option<Result<Segment, Error>>> = Vec::new();
    results.resize_with(items.len(), || None);
    let mut part = next(&mut items, usize::MAX);
    let mut sent = send_part(&link, &mut part, &mut results);
    async move {
        loop {
            let told = match sent {
                Ok(Some(pending)) => results_of(&link, pending.await, part.len())?,
                Ok(None) => Vec::new(),
                Err(error) => part.iter().map(|_| Err(error.clone())).collect(),
            };
            for (told, Item { at, handler, context }) in told.into_iter().zip(part) {
                let told = match &handler {
                    Handler::Compiled(_) if says_unknown_handler(&told) => {
                        match start_execution(&link, handler, context, Arc::default(), Sending::Listed) {
                            Ok(execution) => execution.await,
                            Err(error) => Err(error),
                        }
                    }
                    _ => told,
                };
                if let Ok(segment) = &told {
                    held.note(&link, segment);
                }
                put(&mut results, at, told);
            }
            if items.is_empty() {
                return all_of(results);
            }
            part = next(&mut items, usize::MAX);
            sent = send_part(&link, &mut part, &mut results);
        }
    }
}

fn send_part(
    link: &Arc<Link>,
    part: &mut Vec<Item>,
    results: &mut [Option<Result<Segment, Error>>],
) -> Result<Option<Pending>, Error> {
    send(link, part, ManyItem::default(), Vec::new(), |at, error| put(results, at, Err(error)))
}

/// One for each item: those that were told, then what the others failed with.
fn results_of(link: &Arc<Link>, answer: Result<Answer, Error>, count: usize) -> Result<Results, Error> {
    let (segments, error) = answered!(answer?, Answer::Results(segments, error) => (segments, error))?;
    let mut results: Vec<_> = segments.into_iter().map(|segment| listed(link, segment)).collect();
    if results.len() > count || results.len() < count && error.is_none() {
        return Err(MISSING);
    }
    if let Some(error) = error {
        results.resize_with(count, || Err(error.clone()));
    }
    Ok(results)
}

/// What it says of calls is kept, as of any other execution.
fn listed(link: &Arc<Link>, segment: Segment) -> Result<Segment, Error> {
    let answer = Ok(Answer::Segment(Box::new(segment)));
    let mut ready = link.listing().answered(Slot::new(), answer).into_iter();
    let first = ready.next().map(|(_, answer)| answer);
    link.hand_out(ready);
    match first {
        Some(answer) => answered!(answer?, Answer::Segment(segment) => *segment),
        None => Err(Error::protocol("a segment that is handed out")),
    }
}
