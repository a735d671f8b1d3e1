//! The supervisor's copies of the connections that a worker has: by which another worker goes on with those that are at rest when the
//! one that has them is lost.
//!
//! A copy is kept until its connection ends, which the kernel tells; nobody reads from it or writes to it here. Invariant: no two
//! connections of a worker have one number at a time.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::page::MARKS;

/// No connection's.
const BELL: u64 = u64::MAX;
const BATCH: usize = 64;

#[derive(Debug, Default)]
struct Book {
    held: HashMap<u32, Arc<UnixStream>>,
    next: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Copies {
    epoll: Epoll,
    book: Mutex<Book>,
}

impl Copies {
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?, book: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps one, by a number that no other one has, and that none had for long.
    pub fn keep(&self, stream: Arc<UnixStream>) -> io::Result<u32> {
        let mut book = self.lock();
        let free = |book: &Book| (0..MARKS).map(|n| (book.next + n) % MARKS).find(|n| !book.held.contains_key(n));
        let number = free(&book).ok_or(io::ErrorKind::QuotaExceeded)?;
        // its end is told without being asked for
        self.epoll.add(&stream, EpollEvent::new(EpollFlags::empty(), number.into()))?;
        book.next = (number + 1) % MARKS;
        book.held.insert(number, stream);
        Ok(number)
    }

    /// Lets go of those that end, until the other end of `bell` is gone.
    pub fn let_go_of_ended(&self, bell: &UnixStream) {
        if self.epoll.add(bell, EpollEvent::new(EpollFlags::EPOLLIN, BELL)).is_err() {
            return;
        }
        loop {
            let mut ended = [EpollEvent::empty(); BATCH];
            let count = self.epoll.wait(&mut ended, EpollTimeout::NONE).unwrap_or(0);
            for event in ended.iter().take(count) {
                if event.data() == BELL {
                    return;
                }
                let number = u32::try_from(event.data()).unwrap_or(MARKS);
                let copy = self.lock().held.remove(&number);
                if let Some(copy) = copy {
                    let _ = self.epoll.delete(&copy);
                }
            }
        }
    }

    /// Those that are there, by their numbers; none is kept any more.
    pub fn take_all(&self) -> HashMap<u32, Arc<UnixStream>> {
        let held = std::mem::take(&mut self.lock().held);
        for copy in held.values() {
            let _ = self.epoll.delete(copy);
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_copy_is_kept_for_as_long_as_its_connection_lives() {
        let copies = Copies::new().unwrap();
        let (bell, rung) = UnixStream::pair().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| copies.let_go_of_ended(&rung));
            let mut clients: HashMap<u32, UnixStream> = HashMap::new();
            for _ in 0..100 {
                let (client, ours) = UnixStream::pair().unwrap();
                clients.insert(copies.keep(Arc::new(ours)).unwrap(), client);
            }
            assert_eq!(clients.len(), 100, "each has a number");
            clients.retain(|number, _| number % 2 == 0);
            while copies.lock().held.len() > 50 {
                thread::yield_now();
            }
            let mut left: Vec<u32> = copies.take_all().into_keys().collect();
            left.sort_unstable();
            let mut expected: Vec<u32> = clients.keys().copied().collect();
            expected.sort_unstable();
            assert_eq!(left, expected);
            drop(bell);
        });
    }
}
