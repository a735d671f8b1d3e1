//! Whether a connection is at rest, so that another process could go on with it: one word, which outlives this process.
//!
//! The word counts the reasons for doubt: hello that is not answered, bytes that were read and are not whole frames that are in the
//! books, answers that have not left, to the last byte, and whatever exists in this process alone and was named to the client. At zero
//! all that came is answered or stands in the [roll](super::roll), and all answers have left.
//!
//! Invariant: a reason is counted before it exists, and is taken back after it has gone. So the word says too much at times, and never
//! too little. The numbers are added and taken by different threads, in any order.

use std::sync::atomic::{AtomicU64, Ordering};

/// See the module. None: nobody looks at it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    word: Option<&'static AtomicU64>,
    number: u32,
}

impl Mark {
    /// `number`: of the connection.
    pub fn new(word: Option<&'static AtomicU64>, number: u32) -> Self {
        Self { word, number }
    }

    /// The connection's, by which whoever looks knows it.
    pub fn number(self) -> u32 {
        self.number
    }

    /// Whether somebody would look at it.
    pub fn counts(self) -> bool {
        self.word.is_some()
    }

    /// There is one more reason.
    pub fn doubt(self) {
        if let Some(word) = self.word {
            word.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// So many are gone.
    pub fn trust(self, reasons: u64) {
        if let Some(word) = self.word.filter(|_| reasons > 0) {
            word.fetch_sub(reasons, Ordering::SeqCst);
        }
    }
}
