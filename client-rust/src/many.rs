//! Many executions in one request.
//!
//! Invariants: results come in the order of the items, one each; frames follow one another, so that no item is begun before those in
//! front of it are done or suspended. Of items whose request failed, those that were told before have their results all the same.

use std::future::Future;
use std::sync::Arc;

use nexus_protocol::limits::{CLIENT_MANY_BLOCK_BYTES, MAX_MANY_ITEMS};
use nexus_protocol::message::{ExecuteMany, ManyItem};
use nexus_protocol::{ClientMessage, SidecarMessage};

use crate::compiled::{Handler, says_unknown_handler};
use crate::context::Context;
use crate::error::Error;
use crate::execution::{Sending, start_execution};
use crate::held::Held;
use crate::link::{Answer, Link, Pending, answered};
use crate::segment::Segment;
use crate::slot::Slot;

/// What is run for one of them.
pub(crate) type Item = (Handler, Context);

/// Sends the first of the items at once.
pub(crate) fn start(
    link: Arc<Link>,
    held: Arc<Held>,
    mut items: Vec<Item>,
) -> Result<impl Future<Output = Result<Vec<Result<Segment, Error>>, Error>> + Send + use<>, Error> {
    let mut part = next(&mut items);
    let mut pending = send(&link, &part)?;
    Ok(async move {
        let mut results = Vec::new();
        loop {
            let told = match pending {
                Some(pending) => results_of(&link, pending.await, part.len())?,
                None => Vec::new(),
            };
            for (told, (handler, context)) in told.into_iter().zip(part) {
                let told = match &handler {
                    Handler::Compiled(_) if says_unknown_handler(&told) => {
                        start_execution(&link, handler, context, Arc::default(), Sending::Listed)?.await
                    }
                    _ => told,
                };
                if let Ok(segment) = &told {
                    held.note(&link, segment);
                }
                results.push(told);
            }
            if items.is_empty() {
                return Ok(results);
            }
            part = next(&mut items);
            pending = send(&link, &part)?;
        }
    })
}

/// Takes as many as one frame is for.
fn next(items: &mut Vec<Item>) -> Vec<Item> {
    let mut bytes = 0;
    let fits = items.iter().take(MAX_MANY_ITEMS).take_while(|(handler, context)| {
        let was = bytes;
        bytes += context.payload_bytes() + handler.source().len();
        was < CLIENT_MANY_BLOCK_BYTES
    });
    let count = fits.count();
    let rest = items.split_off(count);
    std::mem::replace(items, rest)
}

fn send(link: &Arc<Link>, part: &[Item]) -> Result<Option<Pending>, Error> {
    if part.is_empty() {
        return Ok(None);
    }
    let codes: Vec<_> = part.iter().map(|(handler, _)| handler.to_send()).collect();
    let mut items = Vec::with_capacity(part.len());
    for ((_, context), code) in part.iter().zip(&codes) {
        let mut request = context.request(code.code())?;
        request.resident = context.resident_on(link)?;
        items.push(ManyItem::from(request));
    }
    // one handler of all is said once
    let (source, handler) = items.first().map_or((None, None), |first| (first.source, first.handler));
    let mut common = ManyItem::default();
    if items.iter().all(|item| (item.source, item.handler) == (source, handler)) {
        (common.source, common.handler) = (source, handler);
        items.iter_mut().for_each(|item| (item.source, item.handler) = (None, None));
    }
    let many =
        ExecuteMany::new(common, items).map_err(|_| Error::protocol("an item of many that makes no execution"))?;
    link.send(ClientMessage::ExecuteMany(many)).map(Some)
}

/// One for each item: those that were told, then what the others failed with.
fn results_of(
    link: &Arc<Link>,
    answer: Result<Answer, Error>,
    count: usize,
) -> Result<Vec<Result<Segment, Error>>, Error> {
    let (segments, error) = answered!(answer?, Answer::Results(segments, error) => (segments, error))?;
    let mut results: Vec<_> = segments.into_iter().map(|segment| listed(link, segment)).collect();
    if results.len() > count || results.len() < count && error.is_none() {
        return Err(Error::protocol("as many results as there were items"));
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

/// What a frame with results is, and whether others follow.
pub(crate) fn read(message: &mut SidecarMessage<'_>) -> Option<(Vec<Segment>, bool)> {
    let SidecarMessage::Results(results) = message else { return None };
    Some((std::mem::take(&mut results.results).into_iter().map(Segment::of).collect(), results.more))
}
