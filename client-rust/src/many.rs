//! Many executions in one request: what goes into its frames.
//!
//! Invariants: items keep their order; frames follow one another, so that no item is begun before those in front of it are done or
//! suspended; what is wrong with one item is its own result and keeps no other from being sent.

mod execute;
mod request;
mod run;

use std::collections::VecDeque;
use std::sync::Arc;

use nexus_protocol::limits::{CLIENT_MANY_BLOCK_BYTES, MAX_CONTROL_VALUES, MAX_MANY_ITEMS};
use nexus_protocol::message::{ExecuteMany, ManyItem};
use nexus_protocol::{ClientMessage, SidecarMessage};

use crate::compiled::Handler;
use crate::context::Context;
use crate::error::Error;
use crate::link::{Link, Pending, PlaceHeld};
use crate::segment::Segment;

pub(crate) use execute::execute;
pub(crate) use run::ManyRun;

pub use request::ManyRequest;

/// Names that the contexts of one frame list: beside them a frame has to hold what else is said of each.
const MANY_NAMES: usize = MAX_CONTROL_VALUES / 4;

/// One of them.
pub(crate) struct Item {
    /// Which of all it is.
    at: usize,
    handler: Handler,
    context: Context,
}

/// Numbers them.
pub(crate) fn items(all: impl IntoIterator<Item = (Handler, Context)>) -> Vec<Item> {
    all.into_iter().enumerate().map(|(at, (handler, context))| Item { at, handler, context }).collect()
}

/// Takes as many as one frame is for, at most so many, and at least one. What fills a frame by itself has one of its own.
fn next(items: &mut Vec<Item>, most: usize) -> Vec<Item> {
    let (mut bytes, mut names) = (0, 0);
    let fits = items.iter().take(MAX_MANY_ITEMS.min(most)).enumerate().take_while(|(place, item)| {
        let own = item.context.payload_bytes() + item.handler.source().len();
        let is_first_or_small = *place == 0 || (bytes < CLIENT_MANY_BLOCK_BYTES && own < CLIENT_MANY_BLOCK_BYTES);
        let own_names = item.context.names_listed();
        let is_named = *place == 0 || names + own_names <= MANY_NAMES;
        bytes += own;
        names += own_names;
        is_first_or_small && is_named
    });
    let count = fits.count();
    let rest = items.split_off(count);
    std::mem::replace(items, rest)
}

/// Sends them. `failed` is told of those that make no execution, which leave `part`. None: none is left.
fn send(
    link: &Arc<Link>,
    part: &mut Vec<Item>,
    common: ManyItem<'_>,
    places: Vec<Arc<PlaceHeld>>,
    mut failed: impl FnMut(usize, Error),
) -> Result<Option<Pending>, Error> {
    let codes: Vec<_> = part.iter().map(|item| item.handler.to_send()).collect();
    let (mut items, mut faults) = (Vec::with_capacity(part.len()), VecDeque::new());
    for (place, (Item { context, .. }, code)) in part.iter().zip(&codes).enumerate() {
        let request = context.request(code.code()).and_then(|mut request| {
            request.resident = context.resident_on(link)?;
            Ok(request)
        });
        match request {
            Ok(mut request) => {
                if common.extensions.is_some() {
                    request.extensions = None;
                }
                items.push(ManyItem::from(request));
            }
            Err(error) => faults.push_back((place, error)),
        }
    }
    let sent = if items.is_empty() { Ok(None) } else { send_all(link, common, items, places).map(Some) };
    drop(codes);
    let mut places = 0..;
    part.retain(|item| match (places.next(), faults.front()) {
        (Some(place), Some((faulty, _))) if place == *faulty => {
            faults.pop_front().into_iter().for_each(|(_, error)| failed(item.at, error));
            false
        }
        _ => true,
    });
    sent
}

fn send_all<'a>(
    link: &Arc<Link>,
    mut common: ManyItem<'a>,
    mut items: Vec<ManyItem<'a>>,
    places: Vec<Arc<PlaceHeld>>,
) -> Result<Pending, Error> {
    // one handler of all is said once
    let (source, handler) = items.first().map_or((None, None), |first| (first.source, first.handler));
    if items.iter().all(|item| (item.source, item.handler) == (source, handler)) {
        (common.source, common.handler) = (source, handler);
        items.iter_mut().for_each(|item| (item.source, item.handler) = (None, None));
    }
    let many =
        ExecuteMany::new(common, items).map_err(|_| Error::protocol("an item of many that makes no execution"))?;
    link.send_many(ClientMessage::ExecuteMany(many), places)
}

const MISSING: Error = Error::protocol("as many results as there were items");

fn put<T>(results: &mut [Option<T>], at: usize, result: T) {
    if let Some(place) = results.get_mut(at) {
        *place = Some(result);
    }
}

/// One for each item.
fn all_of<T>(results: Vec<Option<T>>) -> Result<Vec<T>, Error> {
    results.into_iter().map(|result| result.ok_or(MISSING)).collect()
}

/// What a frame with results is, and whether others follow.
pub(crate) fn read(message: &mut SidecarMessage<'_>) -> Option<(Vec<Segment>, bool)> {
    let SidecarMessage::Results(results) = message else { return None };
    Some((std::mem::take(&mut results.results).into_iter().map(Segment::of).collect(), results.more))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(mut items: Vec<Item>, most: usize) -> Vec<usize> {
        std::iter::from_fn(|| Some(next(&mut items, most).len()).filter(|count| *count > 0)).collect()
    }

    #[test]
    fn frames_are_bounded_in_items_bytes_and_names() {
        let of = |contexts: Vec<Context>| items(contexts.into_iter().map(|context| (Handler::from("1"), context)));
        assert_eq!(counts(of(vec![Context::new(); 2_500]), usize::MAX), [1_000, 1_000, 500]);
        assert_eq!(counts(of(vec![Context::new(); 250]), 100), [100, 100, 50]);
        let half = Context::new().args(&"x".repeat(CLIENT_MANY_BLOCK_BYTES * 3 / 4));
        assert_eq!(counts(of(vec![half; 5]), usize::MAX), [2, 2, 1]);
        let large = Context::new().args(&"x".repeat(CLIENT_MANY_BLOCK_BYTES));
        let mixed = vec![Context::new(), large.clone(), Context::new(), large.clone(), large];
        assert_eq!(counts(of(mixed), usize::MAX), [1, 1, 1, 1, 1]);
        let named = Context::new().grants((0..MANY_NAMES / 2).map(|n| format!("ext:e{n}")));
        assert_eq!(counts(of(vec![named; 5]), usize::MAX), [2, 2, 1]);
    }
}
