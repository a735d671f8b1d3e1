//! Connections on their way from the supervisor to a worker, and the book of those that no worker has taken yet.
//!
//! Invariant: how many a worker has taken is one count, in the page; what goes over the line only says that it has changed. Where
//! the line has no room for that, something in it is still to be heard, and the count is read whenever something is heard: so none
//! is lost. The count may be a lie, and lets go of no more than was handed to that worker.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::line::Line;
use super::page::Page;
use super::words::Said;
use crate::server::Mark;
use crate::server::door::Whose;

/// Where a worker takes them.
#[derive(Debug)]
pub struct Intake {
    line: Line,
    page: Page,
    marks: &'static [AtomicU64],
    taken: AtomicU64,
}

impl AsFd for Intake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}

impl Intake {
    pub fn new(line: Line, page: Page) -> io::Result<Self> {
        let marks = page.marks()?;
        Ok(Self { line, page, marks, taken: AtomicU64::new(0) })
    }

    pub fn mark(&self, number: u32) -> Mark {
        Mark::new(self.marks.get(number as usize), number)
    }

    /// A connection that was handed over; that it is taken is told at once. Waits for nothing.
    pub fn take(&self) -> io::Result<(UnixStream, Whose)> {
        let (whose, descriptor) = self.line.take()?;
        if whose != Whose::Parent {
            // also where its descriptor was lost on the way: it will not come again
            let taken = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
            self.page.write_taken(taken);
            let _ = self.line.say_if_there_is_room(&Said::Taken.to_bytes());
        }
        Ok((UnixStream::from(descriptor.ok_or(io::ErrorKind::ConnectionAborted)?), whose))
    }
}

/// A connection, whether a worker has greeted its client, and its number with the worker that it is handed to.
#[derive(Clone, Debug)]
pub struct Handed {
    pub stream: Arc<UnixStream>,
    pub greeted: bool,
    pub number: u32,
}

/// Connections that were handed to a worker and that it has not taken yet, the oldest first: those of one that is lost are the
/// next one's.
#[derive(Debug, Default)]
pub struct Untaken(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    waiting: VecDeque<Handed>,
    handed: u64,
    /// Of those.
    let_go: u64,
}

impl Untaken {
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands one over, and keeps it until it is taken: also where there is nobody to have it. Waits while the worker takes none.
    pub fn hand_over(&self, line: &Line, handed: Handed) {
        let number = handed.number;
        {
            // first here: it may be taken at once
            let mut book = self.lock();
            book.waiting.push_back(handed.clone());
            book.handed += 1;
        }
        let whose = if handed.greeted { Whose::Greeted(number) } else { Whose::Client(number) };
        match line.hand_over(&handed.stream, whose) {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {}
            Err(e) => {
                log::error!("a connection is closed, since it cannot be handed over: {e}");
                // it is the last one, as nobody else hands any over; unless the worker has lied
                let mut book = self.lock();
                if book.handed > book.let_go {
                    book.handed -= 1;
                    book.waiting.pop_back();
                }
            }
        }
    }

    /// What was handed to a worker that is gone, and is nobody's now.
    pub fn take_all(&self) -> VecDeque<Handed> {
        std::mem::take(&mut self.lock().waiting)
    }

    /// The worker says that it has taken so many.
    pub fn are_taken(&self, total: u64) {
        let mut book = self.lock();
        let more = total.min(book.handed).saturating_sub(book.let_go);
        book.let_go += more;
        let more = book.waiting.len().min(more as usize);
        let closed: Vec<_> = book.waiting.drain(..more).collect();
        drop(book);
        drop(closed);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::super::words::SAID_BYTES;
    use super::*;

    fn new(stream: UnixStream) -> Handed {
        Handed { stream: Arc::new(stream), greeted: false, number: 1 }
    }

    fn sides() -> (Line, Page, Intake) {
        let (ours, theirs) = Line::pair().unwrap();
        let page = Page::new().unwrap();
        let intake = Intake::new(theirs, page.try_clone().unwrap()).unwrap();
        (ours, page, intake)
    }

    fn hear_all(line: &Line, page: &Page, untaken: &Untaken) {
        let mut words = 0;
        while line.hear_if_there_is_any(&mut [0; SAID_BYTES]).is_ok() {
            untaken.are_taken(page.taken());
            words += 1;
        }
        assert!(words > 0);
    }

    #[test]
    fn what_a_worker_has_taken_is_let_go_however_full_the_line_was() {
        let ((ours, page, intake), untaken) = (sides(), Untaken::default());
        // what else it says has filled the line
        while intake.line.say_if_there_is_room(&Said::Attached.to_bytes()).is_ok() {}
        let mut clients = Vec::new();
        for _ in 0..100 {
            let (client, handed) = UnixStream::pair().unwrap();
            untaken.hand_over(&ours, new(handed));
            clients.push((client, intake.take().unwrap().0));
        }
        assert_eq!(untaken.lock().waiting.len(), 100);
        hear_all(&ours, &page, &untaken);
        assert_eq!(untaken.lock().waiting.len(), 0);
        for (mut client, taken) in clients {
            drop(taken);
            assert_eq!(client.read(&mut [0]).unwrap(), 0, "nobody keeps a copy");
        }
    }

    #[test]
    fn a_count_that_lies_lets_go_of_nothing_that_another_worker_is_to_have() {
        let ((ours, _page, intake), last) = (sides(), Untaken::default());
        let (_client, handed) = UnixStream::pair().unwrap();
        last.hand_over(&ours, new(handed));
        drop(intake);
        // nobody has it any more, and it waits
        let (_client, handed) = UnixStream::pair().unwrap();
        last.hand_over(&ours, new(handed));
        let left = last.take_all();
        for lie in [u64::MAX, 1, 0, u64::MAX - 1] {
            last.are_taken(lie);
        }
        let (ours, page, intake) = sides();
        let untaken = Untaken::default();
        left.into_iter().for_each(|handed| untaken.hand_over(&ours, handed));
        assert_eq!(untaken.lock().waiting.len(), 2);
        untaken.are_taken(1);
        for lie in [0, 1] {
            untaken.are_taken(lie);
            assert_eq!(untaken.lock().waiting.len(), 1);
        }
        untaken.are_taken(u64::MAX);
        assert_eq!(untaken.lock().waiting.len(), 0);
        assert!(intake.take().is_ok() && intake.take().is_ok() && intake.take().is_err());
        assert_eq!(page.taken(), 2);
    }
}
