//! The HTTP endpoint, off unless it is asked for: `/metrics`, `/healthz`, `/readyz`.
//!
//! One thread of its own, one `poll` over at most a few connections, each with a deadline and a bound on its head; it
//! never waits for a peer, and no engine thread ever works for it. GET and HEAD only, one exchange per connection, and nothing of a
//! request is used but its path. It has no authentication: it listens on this machine alone, unless httpAllowRemote is set, and
//! a Unix socket takes the users that the sidecar itself takes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nexus_protocol::limits::{HTTP_MAX_CONNECTIONS, HTTP_MAX_HEAD_BYTES, HTTP_TIMEOUT_MS};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;

use crate::config::Endpoint;
use crate::error::StartError;
use crate::lifecycle::Served;
use crate::observe::{Exposition, process};
use crate::os;
use crate::server::listen::{self, Audience, Bound};

/// Headers of one request; none of them is looked at.
const MAX_HEADERS: usize = 64;
/// Time for the server to show a sign of life.
const PATIENCE: Duration = Duration::from_secs(1);
const TEXT: &str = "text/plain; charset=utf-8";

/// What the endpoint tells about: nothing at first, then a server.
#[derive(Default)]
pub struct Status {
    server: OnceLock<Arc<dyn Served>>,
}

impl Status {
    /// The server is ready.
    pub fn serving(&self, server: Arc<dyn Served>) {
        let _ = self.server.set(server);
    }

    /// All metrics in the Prometheus text format, those of this process too; none before there is a server.
    pub fn metrics(&self) -> Option<String> {
        Some(self.server.get()?.prometheus()? + &process::text())
    }
}

/// A bound endpoint.
pub struct Http {
    listener: Listener,
    allow_uids: Vec<u32>,
    /// Removes a Unix socket when it is dropped.
    bound: Option<Bound>,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

trait Stream: Read + Write + AsFd + Send {}
impl Stream for TcpStream {}
impl Stream for Local {}

/// One that others on this machine may send descriptors along by.
struct Local(UnixStream);

impl Read for Local {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        os::read_from_peer(&self.0, room)
    }
}

impl Write for Local {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl AsFd for Local {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        os::let_go_of_rest(&self.0);
    }
}

struct Exchange {
    stream: Box<dyn Stream>,
    head: Vec<u8>,
    /// Empty while the head is read.
    answer: Vec<u8>,
    written: usize,
    until: Instant,
}

/// A head that is whole, or that never will be.
enum Parsed {
    Get(Request),
    Refused(Answer),
}

/// All of a request that is looked at.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    path: String,
    exposition: Exposition,
    /// The answer's head is wanted, as it would be with its body.
    head_only: bool,
}

/// Status line, type of the body, body.
struct Answer(&'static str, &'static str, String);

impl Http {
    pub fn bind(endpoint: &Endpoint, allow_uids: &[u32]) -> Result<Self, StartError> {
        let (listener, bound) = match endpoint {
            Endpoint::Tcp(address) => {
                let listener = TcpListener::bind(address)
                    .map_err(|source| StartError::HttpListen { address: *address, source })?;
                (Listener::Tcp(listener), None)
            }
            Endpoint::Unix(path) => {
                let audience = if allow_uids.is_empty() { Audience::Own } else { Audience::Listed };
                let (listener, bound) = listen::bind(path, audience)?;
                (Listener::Unix(listener), Some(bound))
            }
        };
        Ok(Self { listener, allow_uids: allow_uids.to_vec(), bound })
    }

    /// Serves from a thread of its own for as long as the process lives. What is returned goes at its end.
    pub fn start(mut self, status: Arc<Status>) -> io::Result<Option<Bound>> {
        match &self.listener {
            Listener::Tcp(listener) => listener.set_nonblocking(true)?,
            Listener::Unix(listener) => listener.set_nonblocking(true)?,
        }
        let bound = self.bound.take();
        std::thread::Builder::new().name("http".into()).spawn(move || self.serve(&status))?;
        Ok(bound)
    }

    fn serve(&self, status: &Status) {
        let mut exchanges: Vec<Exchange> = Vec::new();
        loop {
            self.wait(&exchanges);
            let now = Instant::now();
            exchanges.retain_mut(|exchange| now < exchange.until && exchange.advance(status));
            // as many as there is room for, and then those that are there have their turn
            for _ in 0..HTTP_MAX_CONNECTIONS {
                let Some(stream) = self.accept() else { break };
                // in a full house whoever has been there longest goes: peers that ask nothing keep no probe out
                if exchanges.len() >= HTTP_MAX_CONNECTIONS {
                    exchanges.remove(0);
                }
                let until = Instant::now() + Duration::from_millis(HTTP_TIMEOUT_MS);
                exchanges.push(Exchange { stream, head: Vec::new(), answer: Vec::new(), written: 0, until });
            }
        }
    }

    fn wait(&self, exchanges: &[Exchange]) {
        let listener = match &self.listener {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        };
        let wanted = |e: &Exchange| if e.answer.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLOUT };
        let mut fds: Vec<PollFd<'_>> = exchanges
            .iter()
            .map(|e| PollFd::new(e.stream.as_fd(), wanted(e)))
            .chain([PollFd::new(listener, PollFlags::POLLIN)])
            .collect();
        let timeout = exchanges.iter().map(|e| e.until).min().map_or(PollTimeout::NONE, |until| {
            let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        if poll(&mut fds, timeout).is_err() {
            // out of memory, perhaps: not in a tight loop
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn accept(&self) -> Option<Box<dyn Stream>> {
        match &self.listener {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().map_err(complain).ok()?;
                stream.set_nonblocking(true).ok()?;
                Some(Box::new(stream))
            }
            Listener::Unix(listener) => {
                let stream = Local(listener.accept().map_err(complain).ok()?.0);
                let uid = getsockopt(&stream.0, sockopt::PeerCredentials).ok()?.uid();
                if uid == geteuid().as_raw() || self.allow_uids.contains(&uid) {
                    stream.0.set_nonblocking(true).ok()?;
                    return Some(Box::new(stream));
                }
                log::warn!("an HTTP connection of user {uid} is refused");
                None
            }
        }
    }
}

fn complain(error: io::Error) {
    if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
        log::error!("cannot accept an HTTP connection: {error}");
        // it stays in the queue and wakes us again
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl Exchange {
    /// Reads and writes as much as there is. False: it is over.
    fn advance(&mut self, status: &Status) -> bool {
        if self.answer.is_empty() {
            match self.read() {
                Ok(None) => return true,
                Ok(Some(Parsed::Get(request))) => {
                    self.answer = answer_to(&request, status).into_bytes(!request.head_only);
                }
                Ok(Some(Parsed::Refused(answer))) => self.answer = answer.into_bytes(true),
                Err(()) => return false,
            }
        }
        while let Some(rest) = self.answer.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(0) => return false,
                Ok(n) => self.written += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return e.kind() == ErrorKind::WouldBlock,
            }
        }
        false
    }

    /// None: more has to come. An error: nothing will.
    fn read(&mut self) -> Result<Option<Parsed>, ()> {
        let mut chunk = [0; 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(()),
                Ok(n) => self.head.extend_from_slice(chunk.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(_) => return Err(()),
            }
            if let Some(done) = parse(&self.head) {
                return Ok(Some(done));
            }
        }
    }
}

/// None: the head is not whole yet.
fn parse(head: &[u8]) -> Option<Parsed> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let whole = match request.parse(head) {
        Ok(status) => status.is_complete(),
        Err(_) => {
            return Some(Parsed::Refused(plain("400 Bad Request", "this is no request that is understood here\n")));
        }
    };
    if head.len() > HTTP_MAX_HEAD_BYTES {
        return Some(Parsed::Refused(plain(
            "431 Request Header Fields Too Large",
            "the head of the request is too long\n",
        )));
    }
    let (Some(method), Some(path), true) = (request.method, request.path, whole) else { return None };
    if !["GET", "HEAD"].contains(&method) {
        return Some(Parsed::Refused(plain(
            "405 Method Not Allowed",
            "GET and HEAD are all that is understood here\n",
        )));
    }
    let accepts = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("accept"));
    let accepts: Vec<&str> = accepts.filter_map(|header| std::str::from_utf8(header.value).ok()).collect();
    Some(Parsed::Get(Request {
        path: path.split(['?', '#']).next().unwrap_or_default().to_owned(),
        exposition: Exposition::accepted(&accepts.join(",")),
        head_only: method == "HEAD",
    }))
}

fn answer_to(request: &Request, status: &Status) -> Answer {
    let server = status.server.get();
    let unavailable = "503 Service Unavailable";
    match (request.path.as_str(), server) {
        ("/healthz", None) => plain("200 OK", "starting\n"),
        ("/healthz", Some(server)) if server.is_alive(PATIENCE) => {
            plain("200 OK", &format!("alive\n{}\n", server.walls()))
        }
        ("/healthz", Some(_)) => plain(unavailable, "no progress\n"),
        ("/readyz", Some(server)) if server.is_draining() => plain(unavailable, "draining\n"),
        ("/readyz", Some(server)) if server.is_ready() => plain("200 OK", "ready\n"),
        ("/readyz", Some(_)) => plain(unavailable, "nobody takes clients\n"),
        ("/metrics", Some(_)) => match status.metrics() {
            Some(text) => Answer("200 OK", request.exposition.content_type(), request.exposition.of(text)),
            None => plain(unavailable, "no answer\n"),
        },
        ("/readyz" | "/metrics", None) => plain(unavailable, "starting\n"),
        _ => plain("404 Not Found", "there are /metrics, /healthz and /readyz\n"),
    }
}

fn plain(status: &'static str, text: &str) -> Answer {
    Answer(status, TEXT, text.to_owned())
}

impl Answer {
    fn into_bytes(self, with_body: bool) -> Vec<u8> {
        let Self(status, kind, body) = self;
        let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{allow}Cache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
            body.len()
        );
        if with_body { (head + &body).into_bytes() } else { head.into_bytes() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_of(head: &str) -> Option<String> {
        parse(head.as_bytes()).map(|done| match done {
            Parsed::Refused(Answer(status, ..)) => status.to_owned(),
            Parsed::Get(request) => request.path,
        })
    }

    fn request(head: &str) -> Request {
        match parse(head.as_bytes()) {
            Some(Parsed::Get(request)) => request,
            _ => panic!("no request: {head}"),
        }
    }

    #[test]
    fn a_whole_get_is_its_path_without_the_query() {
        assert_eq!(status_of("GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n").as_deref(), Some("/metrics"));
        assert_eq!(status_of("GET / HTTP/1.0\r\n\r\n").as_deref(), Some("/"));
    }

    #[test]
    fn a_head_is_answered_as_a_get_without_its_body() {
        let request = request("HEAD /readyz HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(request.head_only && request.path == "/readyz");
        let whole = answer_to(&request, &Status::default()).into_bytes(true);
        let head = answer_to(&request, &Status::default()).into_bytes(false);
        assert!(whole.starts_with(&head) && head.ends_with(b"\r\n\r\n") && whole.len() > head.len());
    }

    #[test]
    fn what_is_accepted_is_looked_at_in_every_header_of_that_name() {
        let open = "GET /metrics HTTP/1.1\r\nACCEPT: text/html\r\naccept: application/openmetrics-text\r\n\r\n";
        assert_eq!(request(open).exposition, Exposition::OpenMetrics);
        assert_eq!(request("GET /metrics HTTP/1.1\r\nAccept: a;b\r\n\r\n").exposition, Exposition::Prometheus);
    }

    #[test]
    fn half_a_head_waits_at_every_byte() {
        let whole = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
        for end in 0..whole.len() {
            assert_eq!(status_of(&whole[..end]), None, "{end}");
        }
    }

    #[test]
    fn what_is_no_get_is_refused() {
        assert!(status_of("POST /metrics HTTP/1.1\r\n\r\n").is_some_and(|s| s.starts_with("405")));
        assert!(status_of("\u{16}\u{3}\u{1}").is_some_and(|s| s.starts_with("400")));
        assert!(status_of("GET /\u{0} HTTP/1.1\r\n\r\n").is_some_and(|s| s.starts_with("400")));
        let long = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(HTTP_MAX_HEAD_BYTES));
        assert!(status_of(&long).is_some_and(|s| s.starts_with("431")));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_HEADERS + 1));
        assert!(status_of(&many).is_some_and(|s| s.starts_with("400")));
    }

    #[test]
    fn before_there_is_a_server_only_health_is_good() {
        let status = Status::default();
        let code = |path: &str| answer_to(&request(&format!("GET {path} HTTP/1.1\r\n\r\n")), &status).0;
        assert_eq!(code("/healthz"), "200 OK");
        assert!(code("/readyz").starts_with("503") && code("/metrics").starts_with("503"));
        assert!(code("/").starts_with("404"));
    }
}
