//! The memory tier: handlers by last use, bounded by bytes, of which each client has a share.
//!
//! Invariants: what is kept weighs no more than the bound; who is most beyond its share makes room, by its own oldest ones, so
//! that nobody displaces others' handlers by more than a share. Where nobody is, whoever has more than the owner of what was used
//! longest ago makes room for its next one by its own, unless that owner is gone: so many that compile without end displace
//! each other. A handler heavier than the share of whoever made it is not kept.
//! What nobody needs is anybody's: a client may have more than its share for as long as there is room.
//!
//! Who has used a handler is kept with it: a client that uses it for the first time is not told that others did before.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use lru::LruCache;

use super::{Handler, HandlerDigest};

/// Of the bound. Any handler of the largest default source fits in it, with its bytecode.
const SHARE: u64 = 4;
/// Clients that a handler remembers; one that is forgotten counts as new.
const USERS: usize = 8;

/// Who uses handlers: the number of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client(pub u64);

impl Client {
    /// Who has the cache alone, or all of it: no share, and nothing to hide.
    pub const ALONE: Self = Self(0);
}

#[derive(Debug)]
struct Kept {
    handler: Arc<Handler>,
    owner: Client,
    /// Tells it from one of the same digest that was here before.
    serial: u64,
    /// Used since its owner last had to make room.
    used: bool,
    /// The latest of them; the owner is one.
    users: [Option<Client>; USERS],
}

/// What a client has here.
#[derive(Debug, Default)]
struct Holding {
    bytes: u64,
    count: usize,
    /// Serials and digests in the order in which they came, or were passed over because they are in use. Some may be gone.
    order: VecDeque<(u64, HandlerDigest)>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Memory {
    entries: LruCache<HandlerDigest, Kept>,
    holdings: HashMap<Client, Holding>,
    /// Clients that are there. What others have left is for whoever comes.
    present: HashSet<Client>,
    bytes: u64,
    max_bytes: u64,
    serials: u64,
}

impl Kept {
    /// Whether that client has used it before; from now on it has.
    fn note(&mut self, user: Client) -> bool {
        self.used = true;
        if user == Client::ALONE || self.users.contains(&Some(user)) {
            return true;
        }
        self.users.rotate_right(1);
        self.users[0] = Some(user);
        false
    }
}

impl Memory {
    pub fn new(max_bytes: u64) -> Self {
        let (holdings, present) = (HashMap::new(), HashSet::new());
        Self { entries: LruCache::unbounded(), holdings, present, bytes: 0, max_bytes, serials: 0 }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn share_of(&self, client: Client) -> u64 {
        if client == Client::ALONE { self.max_bytes } else { self.max_bytes / SHARE }
    }

    /// A handler, and whether that client has used it before.
    pub fn get(&mut self, digest: &HandlerDigest, user: Client) -> Option<(Arc<Handler>, bool)> {
        let kept = self.entries.get_mut(digest)?;
        let known = kept.note(user);
        Some((kept.handler.clone(), known))
    }

    /// Keeps a handler that was not here, and lets go of others until there is room.
    pub fn insert(&mut self, handler: Arc<Handler>, owner: Client) {
        let (digest, weight) = (handler.digest, handler.weight());
        if weight > self.share_of(owner) {
            return;
        }
        if let Some(old) = self.entries.pop(&digest) {
            self.forget(&old);
        }
        self.serials += 1;
        let serial = self.serials;
        let mut users = [None; USERS];
        users[0] = Some(owner);
        self.entries.put(digest, Kept { handler, owner, serial, used: false, users });
        self.bytes += weight;
        let holding = self.holdings.entry(owner).or_default();
        holding.bytes += weight;
        holding.count += 1;
        holding.order.push_back((serial, digest));
        self.tidy(owner);
        while self.bytes > self.max_bytes {
            let gone = match self.greediest().or_else(|| self.has_more_than_oldest(owner)) {
                Some(client) => self.pop_oldest_of(client),
                None => self.entries.pop_lru().map(|(_, kept)| kept),
            };
            match gone {
                Some(kept) => self.forget(&kept),
                None => break,
            }
        }
    }

    /// Who has to make room: whoever is most beyond its share. None: nobody is.
    fn greediest(&self) -> Option<Client> {
        let beyond =
            self.holdings.iter().map(|(client, has)| (has.bytes.saturating_sub(self.share_of(*client)), *client));
        beyond.max_by_key(|(bytes, _)| *bytes).filter(|(bytes, _)| *bytes > 0).map(|(_, client)| client)
    }

    /// A client, if it has more than whoever's handler would go by age.
    fn has_more_than_oldest(&self, client: Client) -> Option<Client> {
        let (_, oldest) = self.entries.peek_lru()?;
        let theirs = self.holdings.get(&oldest.owner).filter(|_| self.present.contains(&oldest.owner))?;
        (self.holdings.get(&client)?.bytes > theirs.bytes).then_some(client)
    }

    pub fn join(&mut self, client: Client) {
        self.present.insert(client);
    }

    /// Its handlers stay for as long as there is room.
    pub fn leave(&mut self, client: Client) {
        self.present.remove(&client);
    }

    /// The one that came first and was not used since it was last looked at.
    fn pop_oldest_of(&mut self, client: Client) -> Option<Kept> {
        let order = &mut self.holdings.get_mut(&client)?.order;
        while let Some((serial, digest)) = order.pop_front() {
            let Some(kept) = self.entries.peek_mut(&digest).filter(|kept| kept.serial == serial) else { continue };
            if !std::mem::take(&mut kept.used) {
                return self.entries.pop(&digest);
            }
            order.push_back((serial, digest));
        }
        None
    }

    fn forget(&mut self, kept: &Kept) {
        let weight = kept.handler.weight();
        self.bytes -= weight;
        let Some(holding) = self.holdings.get_mut(&kept.owner) else { return };
        holding.bytes -= weight;
        holding.count -= 1;
        if holding.count == 0 {
            self.holdings.remove(&kept.owner);
        }
    }

    /// Those that went by age leave their places behind.
    fn tidy(&mut self, client: Client) {
        let Some(holding) = self.holdings.get_mut(&client) else { return };
        if holding.order.len() > 2 * holding.count + 16 {
            let entries = &self.entries;
            holding.order.retain(|(serial, digest)| entries.peek(digest).is_some_and(|kept| kept.serial == *serial));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::compiled::tests::handler;
    use super::*;

    const A: Client = Client(1);
    const B: Client = Client(2);
    const C: Client = Client(3);

    /// A cache for 40 handlers of about 1,000 bytes.
    fn memory() -> Memory {
        Memory::new(40 * made("x").weight())
    }

    fn made(name: &str) -> Arc<Handler> {
        Arc::new(handler(&format!("{name:_>8}"), 1000))
    }

    fn fill(memory: &mut Memory, client: Client, name: &str, count: usize) {
        for n in 0..count {
            memory.insert(made(&format!("{name}{n}")), client);
        }
    }

    fn left(memory: &Memory, name: &str, count: usize) -> usize {
        (0..count).filter(|n| memory.entries.contains(&made(&format!("{name}{n}")).digest)).count()
    }

    #[test]
    fn who_is_alone_may_have_all_and_then_gives_way() {
        let mut memory = memory();
        fill(&mut memory, A, "a", 60);
        assert_eq!((memory.len(), left(&memory, "a", 60)), (40, 40));
        fill(&mut memory, B, "b", 100);
        let all = |memory: &Memory| ["a", "b", "c"].map(|name| left(memory, name, 100));
        assert_eq!(all(&memory), [20, 20, 0]);
        fill(&mut memory, C, "c", 100);
        assert!(all(&memory).iter().all(|left| (13..=14).contains(left)), "{:?}", all(&memory));
    }

    #[test]
    fn nobody_displaces_more_of_others_than_a_share() {
        let mut memory = memory();
        for (client, name) in [(A, "a"), (B, "b"), (C, "c"), (Client(4), "d")] {
            fill(&mut memory, client, name, 10);
        }
        fill(&mut memory, Client(5), "e", 1000);
        let others: usize = ["a", "b", "c", "d"].map(|name| left(&memory, name, 10)).iter().sum();
        assert!(others >= 30 && memory.len() == 40, "{others}");
        assert_eq!(memory.holdings.values().map(|h| h.bytes).sum::<u64>(), memory.bytes());
    }

    #[test]
    fn many_that_compile_without_end_displace_each_other() {
        let mut memory = memory();
        [A, B].into_iter().chain((10..18).map(Client)).for_each(|client| memory.join(client));
        fill(&mut memory, A, "a", 3);
        for n in 0..800 {
            memory.insert(made(&format!("n{n}")), Client(10 + n % 8));
        }
        assert_eq!((left(&memory, "a", 3), memory.len()), (3, 40));
        // but what is nobody's goes by its age
        memory.leave(A);
        (10..18).for_each(|client| memory.leave(Client(client)));
        for n in 0..100 {
            memory.join(Client(30 + n));
            memory.insert(made(&format!("m{n}")), Client(30 + n));
            memory.leave(Client(30 + n));
        }
        assert_eq!((left(&memory, "a", 3), memory.len()), (0, 40));
        fill(&mut memory, B, "b", 8);
        assert_eq!((left(&memory, "b", 8), memory.len()), (8, 40));
    }

    #[test]
    fn ones_own_oldest_goes_first_but_for_those_in_use() {
        let mut memory = memory();
        fill(&mut memory, A, "a", 40);
        memory.get(&made("a0").digest, A).unwrap();
        fill(&mut memory, A, "new", 2);
        assert_eq!((left(&memory, "a", 1), left(&memory, "a", 3)), (1, 1), "a1 and a2 went");
    }

    #[test]
    fn what_is_heavier_than_a_share_is_not_kept_and_displaces_nothing() {
        let mut memory = memory();
        fill(&mut memory, A, "a", 40);
        let heavy = Arc::new(handler("heavy", 20_000));
        memory.insert(heavy.clone(), B);
        assert_eq!((memory.len(), left(&memory, "a", 40)), (40, 40));
        memory.insert(heavy, Client::ALONE);
        assert!(memory.len() < 40, "who has it all may");
        memory.insert(Arc::new(handler("whole", 100_000)), Client::ALONE);
        assert!(memory.len() > 1);
    }

    #[test]
    fn a_client_that_others_came_before_is_new() {
        let mut memory = memory();
        memory.insert(made("a"), A);
        let digest = made("a").digest;
        let mut known = |client| memory.get(&digest, client).unwrap().1;
        assert!(known(A));
        assert!(!known(B));
        assert!(known(B));
        assert!(known(Client::ALONE));
        for client in 3..3 + USERS as u64 {
            assert!(!known(Client(client)));
        }
        assert!(!known(B), "forgotten, and so new again");
    }

    #[test]
    fn books_of_the_gone_are_closed() {
        let mut memory = memory();
        for client in 1..2000 {
            memory.insert(made(&format!("c{client}")), Client(client));
        }
        assert_eq!((memory.holdings.len(), memory.len()), (40, 40));
        for n in 0..10_000 {
            // each goes by age, since B and C have as much
            memory.insert(made(&format!("n{}", n % 50)), Client(n % 5 + 1));
        }
        assert!(memory.holdings.values().all(|h| h.order.len() <= 2 * h.count + 40));
    }
}
