//! The part of the hub that ties runs to the requests and executions that they are of.

use std::time::Instant;

use nexus_protocol::RequestId;
use nexus_protocol::message::Kind;

use super::turns::Standing;
use super::{Held, Hub, Peer, Request, SessionId};
use crate::server::crew::{Budget, Run, RunId, Stuck};

/// A run whose worker was given up: enough to answer in its place.
#[derive(Debug)]
pub struct Retired<P> {
    pub session: SessionId,
    pub id: RequestId,
    pub kind: Kind,
    pub enqueued: Instant,
    pub connection: P,
    pub budget: Budget,
}

impl<E: Held, P: Peer> Hub<E, P> {
    /// A request is about to be answered: from here on its id may be used again. Comes before the answer, since the client may
    /// act on that before anything else happens here. False: it was answered before, or is another's to answer.
    pub fn answer(&mut self, run: RunId) -> bool {
        let Some(over) = self.crew.answer(run) else { return false };
        self.is_answered(&over, run);
        true
    }

    /// The worker has nothing to do with its run any more. True: nobody has answered it.
    pub fn end_run(&mut self, run: RunId) -> bool {
        let Some(over) = self.crew.end(run) else { return false };
        self.is_answered(&over, run);
        true
    }

    fn is_answered(&mut self, over: &Run<P>, run: RunId) {
        self.no_longer_running(over);
        self.no_longer_unanswered(over.session, over.id, &over.connection, |at| at == Request::Running(run));
        // answered without having been put back: it is over
        if let Some(key) = over.execution {
            self.end(run, key);
        }
    }

    pub(super) fn no_longer_running(&mut self, over: &Run<P>) {
        self.beside -= usize::from(over.is_beside());
        let Some(books) = self.sessions.get_mut(&over.session) else { return };
        books.running -= 1;
        // a run that was long has said so by now
        if books.standing == Standing::Unknown {
            books.standing = Standing::Brief;
            self.turns.is_now(over.session, Standing::Brief);
        }
    }

    /// Gives a worker up with its run: the caller answers. None: it has come to its end at the last moment.
    pub fn retire(&mut self, run: RunId, why: Stuck) -> Option<Retired<P>> {
        let over = self.crew.retire(run, why)?;
        self.is_answered(&over, run);
        let Run { session, id, kind, enqueued, connection, budget, .. } = over;
        Some(Retired { session, id, kind, enqueued, connection, budget })
    }
    /// A session has cost a thread, and its client was told. Returns how many by now.
    pub fn count_cost(&mut self, session: SessionId) -> u32 {
        self.sessions.get_mut(&session).map_or(0, |books| {
            books.cost += 1;
            books.cost
        })
    }
}
