//! What a probe or a scraper sees.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The whole answer to a GET of `path`, over a socket.
pub fn get(socket: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
