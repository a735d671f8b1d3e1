//! A socket pair that keeps messages apart: what supervisor and worker say to each other without waiting for an answer, and the
//! descriptors that the supervisor hands over.
//!
//! Invariant: a message has a fixed length that its receiver knows, and what is longer is cut by the kernel. Descriptors go one
//! way only: [`Line::hear`] has no room for any, so that the kernel closes what a worker may attach.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, send, sendmsg, socketpair};

use crate::os;
use crate::server::door::Whose;

const OF_CLIENT: u8 = 1;
const OF_PARENT: u8 = 2;
/// Of a client that another worker has greeted.
const OF_GREETED: u8 = 3;
/// Whose it is, and its number.
const WORD_BYTES: usize = 5;

/// One end.
#[derive(Debug)]
pub struct Line(OwnedFd);

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Line {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Line> for OwnedFd {
    fn from(line: Line) -> Self {
        line.0
    }
}

impl Line {
    pub fn pair() -> io::Result<(Self, Self)> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self(ours), Self(theirs)))
    }

    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    pub fn say(&self, bytes: &[u8]) -> io::Result<()> {
        send(self.0.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    }

    /// As [`Line::say`], without waiting.
    pub fn say_if_there_is_room(&self, bytes: &[u8]) -> io::Result<()> {
        send(self.0.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT)?;
        Ok(())
    }

    /// Waits for a message. 0: the other end is gone, or has sent nothing.
    pub fn hear(&self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match recv(self.0.as_raw_fd(), bytes, MsgFlags::empty()) {
                Err(nix::errno::Errno::EINTR) => {}
                heard => return Ok(heard?),
            }
        }
    }

    /// Says something, and hands a copy of a descriptor over.
    pub fn give(&self, bytes: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let descriptors = [descriptor.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        sendmsg::<()>(self.0.as_raw_fd(), &[io::IoSlice::new(bytes)], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// Waits for a message, and for a descriptor with it.
    pub fn hear_and_take(&self, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
        os::receive(self.as_fd(), bytes, MsgFlags::empty())
    }

    /// Hands over a connection.
    pub fn hand_over(&self, stream: &UnixStream, whose: Whose) -> io::Result<()> {
        let (of, number) = match whose {
            Whose::Client(number) => (OF_CLIENT, number),
            Whose::Parent => (OF_PARENT, 0),
            Whose::Greeted(number) => (OF_GREETED, number),
        };
        let mut word = [of; WORD_BYTES];
        word[1..].copy_from_slice(&number.to_le_bytes());
        self.give(&word, stream.as_fd())
    }

    /// What was handed over: whose it is, and the connection unless there was no room for it here. Waits for none.
    pub fn take(&self) -> io::Result<(Whose, Option<OwnedFd>)> {
        let mut word = [0; WORD_BYTES];
        let (len, descriptor) = os::receive(self.as_fd(), &mut word, MsgFlags::MSG_DONTWAIT)?;
        let [of, a, b, c, d] = word;
        let number = u32::from_le_bytes([a, b, c, d]);
        match (len, of) {
            (0, _) => Err(io::ErrorKind::ConnectionAborted.into()),
            (_, OF_PARENT) => Ok((Whose::Parent, descriptor)),
            (_, OF_GREETED) => Ok((Whose::Greeted(number), descriptor)),
            _ => Ok((Whose::Client(number), descriptor)),
        }
    }

    #[cfg(test)]
    pub fn hear_if_there_is_any(&self, bytes: &mut [u8]) -> io::Result<usize> {
        Ok(recv(self.0.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT)?)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_connection_goes_over_whole_and_says_whose_it_is() {
        let (ours, theirs) = Line::pair().unwrap();
        assert_eq!(theirs.take().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        for whose in [Whose::Client(u32::MAX), Whose::Parent, Whose::Greeted(7)] {
            let (mut client, handed) = UnixStream::pair().unwrap();
            ours.hand_over(&handed, whose).unwrap();
            drop(handed);
            let (is, taken) = theirs.take().unwrap();
            let mut taken = UnixStream::from(taken.unwrap());
            assert_eq!(is, whose);
            client.write_all(b"x").unwrap();
            let mut byte = [0];
            taken.read_exact(&mut byte).unwrap();
            drop(taken);
            assert_eq!(client.read(&mut byte).unwrap(), 0, "nobody keeps a copy");
        }
    }

    #[test]
    fn a_descriptor_that_comes_the_wrong_way_is_closed_unseen() {
        let (ours, theirs) = Line::pair().unwrap();
        let (mut client, given) = UnixStream::pair().unwrap();
        theirs.give(b"hello", given.as_fd()).unwrap();
        drop(given);
        let mut word = [0; 5];
        assert_eq!(ours.hear(&mut word).unwrap(), 5);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
}
