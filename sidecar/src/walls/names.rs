//! Segments of shared memory that a worker asks the supervisor for: names are the supervisor's.
//!
//! The supervisor makes no segment larger than one connection may have, and no more of them at a time than there are
//! connections; when the worker is gone, so are the names that it had.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use nexus_protocol::limits::MAX_CONNECTIONS;

use super::line::Line;
use crate::segments::{Named, OwnSegments, SegmentMaker};

const MAKE: u64 = 1;
const REMOVE: u64 = 2;
const REQUEST_BYTES: usize = 16;
/// A number, and a name or the reason why there is none.
const REPLY_BYTES: usize = 256;

fn request(what: u64, value: u64) -> [u8; REQUEST_BYTES] {
    let mut bytes = [0; REQUEST_BYTES];
    bytes[..8].copy_from_slice(&what.to_le_bytes());
    bytes[8..].copy_from_slice(&value.to_le_bytes());
    bytes
}

/// In a worker.
#[derive(Debug)]
pub struct AskedSegments(Arc<Mutex<Line>>);

impl AskedSegments {
    pub fn over(line: Line) -> Self {
        Self(Arc::new(Mutex::new(line)))
    }
}

impl SegmentMaker for AskedSegments {
    fn make(&self, bytes: u64) -> io::Result<(File, Box<dyn Named>)> {
        let line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        line.say(&request(MAKE, bytes))?;
        let mut reply = [0; REPLY_BYTES];
        let (len, descriptor) = line.hear_and_take(&mut reply)?;
        drop(line);
        let (number, text) =
            reply.get(..len).and_then(<[u8]>::split_first_chunk::<8>).ok_or(io::ErrorKind::UnexpectedEof)?;
        let text = String::from_utf8_lossy(text).into_owned();
        let Some(descriptor) = descriptor else { return Err(io::Error::other(text)) };
        let name = AskedName { number: u64::from_le_bytes(*number), text, line: self.0.clone() };
        Ok((descriptor.into(), Box::new(name)))
    }
}

/// A name that the supervisor removes when this is dropped.
#[derive(Debug)]
struct AskedName {
    number: u64,
    text: String,
    line: Arc<Mutex<Line>>,
}

impl Named for AskedName {
    fn as_str(&self) -> &str {
        &self.text
    }
}

impl Drop for AskedName {
    fn drop(&mut self) {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        // it is gone when this returns; without a supervisor there is nobody to tell, and this process is about to end
        let _ = line.say(&request(REMOVE, self.number)).and_then(|()| line.hear(&mut [0; REPLY_BYTES]));
    }
}

/// In the supervisor: until the worker is gone. Returns when it is, and removes the names that are left.
pub fn make_for(line: &Line, max_bytes: u64) {
    let mut names: HashMap<u64, Box<dyn Named>> = HashMap::new();
    let mut next = 1;
    let mut bytes = [0; REQUEST_BYTES + 1];
    while let Ok(len @ 1..) = line.hear(&mut bytes) {
        let Some((what, value)) = bytes.get(..len).filter(|b| b.len() == REQUEST_BYTES).map(|b| b.split_at(8)) else {
            continue;
        };
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        match (word(what), word(value)) {
            (MAKE, bytes) => {
                let made = if bytes > max_bytes || names.len() >= MAX_CONNECTIONS {
                    Err(io::Error::other("that is more than there may be"))
                } else {
                    OwnSegments.make(bytes)
                };
                let reply = |number: u64, text: &str| {
                    let mut reply = number.to_le_bytes().to_vec();
                    reply.extend_from_slice(text.as_bytes());
                    reply.truncate(REPLY_BYTES);
                    reply
                };
                let said = match made {
                    Ok((file, name)) => {
                        let said = line.give(&reply(next, name.as_str()), file.as_fd());
                        names.insert(next, name);
                        next += 1;
                        said
                    }
                    Err(e) => line.say(&reply(0, &e.to_string())),
                };
                if said.is_err() {
                    break;
                }
            }
            (REMOVE, number) => {
                drop(names.remove(&number));
                if line.say(&number.to_le_bytes()).is_err() {
                    break;
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;

    use nix::sys::socket::{Shutdown, shutdown};

    use super::*;

    #[test]
    fn names_go_when_they_are_dropped_and_all_of_them_with_the_worker() {
        let (ours, theirs) = Line::pair().unwrap();
        let supervisor = std::thread::spawn(move || make_for(&ours, 1 << 20));
        let maker = AskedSegments::over(theirs);
        let (file, name) = maker.make(1 << 16).unwrap();
        let path = crate::segments::directory().join(name.as_str());
        File::open(&path).unwrap().read_exact_at(&mut [0; 16], 0).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 1 << 16);
        drop(name);
        assert!(!path.exists());
        assert!(maker.make((1 << 20) + 1).is_err());
        let (_file, left) = maker.make(4096).unwrap();
        let path = crate::segments::directory().join(left.as_str());
        assert!(path.exists());
        std::mem::forget(left);
        // garbage of any length is passed over
        for len in [1, 8, 15, 17, 200] {
            maker.0.lock().unwrap().say(&vec![0xff; len]).unwrap();
        }
        // as if the worker had ended: the name that was forgotten still has its end of the line
        let fd = maker.0.lock().unwrap().as_fd().as_raw_fd();
        shutdown(fd, Shutdown::Both).unwrap();
        supervisor.join().unwrap();
        assert!(!path.exists());
    }
}
