//! The arenas of all connections.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nexus_protocol::limits::{ARENA_OPEN_TIMEOUT_MS, ARENA_THRESHOLD_BYTES, MIN_ARENA_BYTES};
use nexus_protocol::message::{OpenArena, Region, Regions};
use nexus_protocol::{ErrorCode, WireError};

use super::arena::{Arena, unknown_arena};
use super::maker::SegmentMaker;
use crate::budget::{Budget, Charge, Full};

/// Time that a client has to open a segment.
const OPEN_TIMEOUT: Duration = Duration::from_millis(ARENA_OPEN_TIMEOUT_MS);

#[derive(Debug)]
struct Held {
    arena: Arc<Arena>,
    /// The client has said that it has it open.
    open: bool,
    since: Instant,
}

/// One connection.
#[derive(Debug)]
struct Owner {
    received: Arc<Budget>,
    /// Its part of what all segments may take: its segment, and those before it that somebody still reads.
    segments: Arc<Budget>,
    held: Option<Held>,
}

/// A copy of what lay in shared memory.
#[derive(Debug)]
pub struct Copied {
    bytes: Vec<u8>,
    charge: Charge,
}

impl Copied {
    /// The bytes, and what they count for as long as that is kept.
    pub fn split(self) -> (Vec<u8>, Charge) {
        (self.bytes, self.charge)
    }
}

impl Deref for Copied {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The segments of all connections, each known by a number.
#[derive(Debug)]
pub struct Arenas {
    maker: Box<dyn SegmentMaker>,
    /// Of one connection; 0: there are none.
    max_bytes: u64,
    /// Of one payload: no more than a frame could bring.
    max_region_bytes: u64,
    total: Arc<Budget>,
    last_generation: AtomicU64,
    /// Connections that are there, and the segment of each.
    owners: Mutex<HashMap<u64, Owner>>,
}

/// What an openArena has come to.
#[derive(Debug)]
pub struct Opened {
    pub generation: u64,
    pub bytes: u64,
    pub name: Option<String>,
}

impl Arenas {
    pub fn new(maker: Box<dyn SegmentMaker>, max_bytes: u64, max_total_bytes: u64, max_region_bytes: u64) -> Self {
        let total = Budget::new("maxTotalArenaBytes", max_total_bytes);
        let (last_generation, owners) = (AtomicU64::new(0), Mutex::default());
        Self { maker, max_bytes, max_region_bytes, total, last_generation, owners }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Owner>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection has come. `received`: by which copies of what it has put into its segment are counted.
    pub fn open(&self, owner: u64, received: Arc<Budget>) {
        let segments = self.total.part("maxArenaBytes", u64::MAX);
        self.lock().entry(owner).or_insert_with(|| Owner { received, segments, held: None });
    }

    /// A connection has gone. What a worker still reads goes when that is done.
    pub fn close(&self, owner: u64) {
        let gone = self.lock().remove(&owner);
        drop(gone);
    }

    pub fn handle(&self, owner: u64, request: OpenArena) -> Result<Opened, WireError> {
        match request {
            OpenArena::Make { bytes } => self.make(owner, bytes),
            OpenArena::Settle { generation, opened } => self.settle(owner, generation, opened),
        }
    }

    fn make(&self, owner: u64, bytes: u64) -> Result<Opened, WireError> {
        if self.max_bytes == 0 {
            return Err(WireError::resource_limit("maxArenaBytes", 0, bytes));
        }
        let bytes = bytes.clamp(MIN_ARENA_BYTES, self.max_bytes.max(MIN_ARENA_BYTES));
        // the one that there was makes room first
        let (segments, before) = match self.lock().get_mut(&owner) {
            Some(owner) => (owner.segments.clone(), owner.held.take()),
            None => return Err(unknown_arena("arena")), // the connection has ended, and nobody hears this
        };
        drop(before);
        let charge = segments.charge(bytes)?;
        let generation = self.last_generation.fetch_add(1, Ordering::Relaxed) + 1;
        let arena = Arena::create(&*self.maker, generation, bytes, charge).map_err(|e| {
            log::warn!("cannot make a shared memory segment: {e}");
            WireError::new(ErrorCode::ResourceLimit, format!("no shared memory: {e}"))
                .with_context_text("resource", "maxArenaBytes")
        })?;
        let opened = Opened { generation, bytes, name: arena.name() };
        let held = Held { arena: Arc::new(arena), open: false, since: Instant::now() };
        match self.lock().get_mut(&owner) {
            Some(owner) => owner.held = Some(held),
            None => return Err(unknown_arena("arena")), // the connection has ended, and nobody hears this
        }
        Ok(opened)
    }

    fn settle(&self, owner: u64, generation: u64, opened: bool) -> Result<Opened, WireError> {
        let mut owners = self.lock();
        let place = owners.get_mut(&owner).map(|owner| &mut owner.held);
        let is_meant = |held: &Held| held.arena.generation == generation;
        let Some(place) = place.filter(|held| held.as_ref().is_some_and(is_meant)) else {
            return Err(unknown_arena("arena"));
        };
        let arena = place.as_ref().map(|held| held.arena.clone());
        // what is not opened goes when nobody waits for it any more
        let _gone = match (place, opened) {
            (Some(held), true) => {
                held.open = true;
                None
            }
            (place, _) => place.take(),
        };
        drop(owners);
        let Some(arena) = arena else { return Err(unknown_arena("arena")) };
        arena.remove_name();
        Ok(Opened { generation, bytes: if opened { arena.bytes() } else { 0 }, name: None })
    }

    fn find(&self, owner: u64, field: &str) -> Result<(Arc<Arena>, Arc<Budget>), WireError> {
        let owners = self.lock();
        let owner = owners.get(&owner);
        let held = owner.and_then(|owner| Some((owner.held.as_ref().filter(|held| held.open)?, owner)));
        held.map(|(held, owner)| (held.arena.clone(), owner.received.clone())).ok_or_else(|| unknown_arena(field))
    }

    /// A private copy of a payload that lies in the segment. `inline`: whether it is in the message as well. It counts as if it
    /// had come with the message.
    pub fn fetch(
        &self,
        owner: u64,
        field: &str,
        region: Option<&Region>,
        inline: bool,
    ) -> Result<Option<Copied>, WireError> {
        let Some(region) = region else { return Ok(None) };
        if inline {
            return Err(WireError::bad_region(field, "bad-region", "it is in the message and in shared memory"));
        }
        if region.len > self.max_region_bytes {
            return Err(WireError::resource_limit("maxFrameBytes", self.max_region_bytes, region.len));
        }
        let (arena, received) = self.find(owner, field)?;
        let charge = received.charge(region.len).map_err(Full::of_request)?;
        Ok(Some(Copied { bytes: arena.read(field, region)?, charge }))
    }

    /// Where answers of a request may be put.
    pub fn lent(&self, owner: u64, regions: &Regions) -> Lent {
        Lent(regions.reply.and_then(|region| Some((self.find(owner, "reply").ok()?.0, region))))
    }

    /// Lets the segments go that no client has opened in time: others may have their bytes.
    pub fn expire(&self, now: Instant) {
        let is_over = |held: &mut Held| !held.open && now.saturating_duration_since(held.since) > OPEN_TIMEOUT;
        let gone: Vec<Held> = self.lock().values_mut().filter_map(|owner| owner.held.take_if(is_over)).collect();
        drop(gone);
    }

    /// Whether a segment still has its name. Waits for nobody: one that is made or settled at this moment counts as one.
    pub fn is_waiting(&self) -> bool {
        match self.owners.try_lock() {
            Ok(owners) => {
                owners.values().filter_map(|owner| owner.held.as_ref()).any(|held| held.arena.name().is_some())
            }
            Err(_) => true,
        }
    }

    /// The sidecar ends: no name stays behind.
    pub fn remove_names(&self) {
        for held in self.lock().values().filter_map(|owner| owner.held.as_ref()) {
            held.arena.remove_name();
        }
    }

    /// Bytes of all segments, as made.
    pub fn bytes(&self) -> u64 {
        self.total.used()
    }
}

/// A part of a segment that a client has lent for one answer.
#[derive(Debug)]
pub struct Lent(Option<(Arc<Arena>, Region)>);

impl Lent {
    /// Puts a large payload there, behind those before. None: it has to go with the message.
    /// `pieces` are its parts, in order.
    pub fn put<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]> + Clone) -> Option<Region> {
        let (arena, left) = self.0.as_mut()?;
        if pieces.clone().map(<[u8]>::len).sum::<usize>() < ARENA_THRESHOLD_BYTES {
            return None;
        }
        let written = arena.write(left, pieces)?;
        left.offset = left.offset.saturating_add(written.len);
        left.len = left.len.saturating_sub(written.len);
        Some(written)
    }
}

#[cfg(test)]
mod tests {
    use std::iter::once;

    use nexus_protocol::ContextValue;

    use super::super::OwnSegments;
    use super::*;

    fn arenas() -> Arenas {
        let arenas = Arenas::new(Box::new(OwnSegments), 4 << 20, 6 << 20, 4 << 20);
        arenas.open(1, Budget::new("received", 4 << 20));
        arenas.open(2, Budget::new("received", 4 << 20));
        arenas
    }

    fn make(arenas: &Arenas, owner: u64, bytes: u64) -> Result<Opened, WireError> {
        arenas.handle(owner, OpenArena::Make { bytes })
    }

    fn path(opened: &Opened) -> std::path::PathBuf {
        super::super::arena::directory().join(opened.name.as_deref().unwrap())
    }

    #[test]
    fn a_segment_has_a_name_until_it_is_opened_and_room_for_one_per_connection() {
        let arenas = arenas();
        let first = make(&arenas, 1, u64::MAX).unwrap();
        assert_eq!((first.bytes, arenas.bytes()), (4 << 20, 4 << 20));
        let region = Region { generation: first.generation, offset: 0, len: 1, crc32: None };
        assert!(arenas.fetch(1, "state", Some(&region), false).is_err(), "not opened yet");
        assert!(path(&first).exists());
        arenas.handle(1, OpenArena::Settle { generation: first.generation, opened: true }).unwrap();
        assert!(!path(&first).exists());
        assert_eq!(arenas.fetch(1, "state", Some(&region), false).unwrap().as_deref(), Some(&[0][..]));
        assert!(arenas.fetch(1, "state", Some(&region), true).is_err());
        assert!(arenas.fetch(2, "state", Some(&region), false).is_err(), "another connection's");
        assert!(arenas.fetch(1, "state", None, true).unwrap().map(Copied::split).is_none());
        // the next one takes its place
        let second = make(&arenas, 1, 0).unwrap();
        assert_eq!((second.bytes, arenas.bytes()), (MIN_ARENA_BYTES, MIN_ARENA_BYTES));
        arenas.handle(1, OpenArena::Settle { generation: second.generation, opened: true }).unwrap();
        let stale = arenas.fetch(1, "state", Some(&region), false).unwrap_err();
        assert_eq!(stale.context["reason"], ContextValue::Text("unknown-arena".into()));
        arenas.close(1);
        assert_eq!(arenas.bytes(), 0);
        assert!(make(&arenas, 1, 0).is_err());
    }

    #[test]
    fn what_the_client_cannot_open_goes_at_once_and_what_it_forgets_later() {
        let arenas = arenas();
        let first = make(&arenas, 1, 0).unwrap();
        let settled = arenas.handle(1, OpenArena::Settle { generation: first.generation, opened: false }).unwrap();
        assert_eq!((settled.bytes, arenas.bytes(), path(&first).exists()), (0, 0, false));
        let second = make(&arenas, 1, 0).unwrap();
        arenas.expire(Instant::now());
        assert!(path(&second).exists());
        arenas.expire(Instant::now() + OPEN_TIMEOUT * 2);
        assert!(!path(&second).exists());
        assert_eq!(arenas.bytes(), 0, "nor does it take the place of others");
        let third = make(&arenas, 2, 0).unwrap();
        let foreign = arenas.handle(1, OpenArena::Settle { generation: third.generation, opened: true });
        assert!(foreign.is_err());
        drop(arenas);
        assert!(!path(&third).exists());
    }

    #[test]
    fn all_together_are_bounded_and_none_is_an_answer() {
        let arenas = arenas();
        make(&arenas, 1, 4 << 20).unwrap();
        assert_eq!(make(&arenas, 2, 4 << 20).unwrap_err().code, ErrorCode::ResourceLimit);
        make(&arenas, 2, 2 << 20).unwrap();
        let off = Arenas::new(Box::new(OwnSegments), 0, 1 << 30, 1);
        off.open(1, Budget::new("received", 4 << 20));
        assert_eq!(make(&off, 1, 1).unwrap_err().code, ErrorCode::ResourceLimit);
    }

    #[test]
    fn answers_go_where_they_fit() {
        let arenas = arenas();
        let opened = make(&arenas, 1, 2 << 20).unwrap();
        let generation = opened.generation;
        arenas.handle(1, OpenArena::Settle { generation, opened: true }).unwrap();
        let reply = Some(Region { generation, offset: 100, len: 1 << 20, crc32: None });
        let mut lent = arenas.lent(1, &Regions { reply, ..Regions::NONE });
        assert_eq!(lent.put(once(&[1; 100][..])), None, "too small to be worth it");
        let half = vec![1; 600 << 10];
        let place = lent.put(once(&half[..])).unwrap();
        assert_eq!((place.offset, place.len), (100, 600 << 10));
        assert_eq!(lent.put(once(&half[..])), None, "no room");
        let next = lent.put(once(&half[..ARENA_THRESHOLD_BYTES])).unwrap();
        assert_eq!(next.offset, 100 + (600 << 10));
        assert_eq!(&*arenas.fetch(1, "x", Some(&place), false).unwrap().unwrap(), half);
        assert!(arenas.lent(2, &Regions { reply, ..Regions::NONE }).put(once(&half[..])).is_none());
    }
}
