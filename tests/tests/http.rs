//! The HTTP endpoint: what it tells, and that nobody can hold it up.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nexus_protocol::limits::HTTP_TIMEOUT_MS;
use nexus_tests::http::get;
use nexus_tests::temp::TempDir;
use nexus_tests::{Options, SOON, Sidecar, Watchdog, eventually, in_time, time};
use nix::sys::signal::Signal;

/// A sidecar with its endpoint on a socket beside its own.
fn sidecar(options: Options) -> (Sidecar, PathBuf, TempDir) {
    let dir = TempDir::new();
    let http = dir.join("http.sock");
    let sidecar = options.flag("http-listen", http.display()).listen_on(&dir.join("s.sock"));
    sidecar.wait_until_ready();
    sidecar.connect().still_works();
    // it serves a moment before it says so
    eventually("it is ready", SOON, || get(&http, "/readyz").starts_with("HTTP/1.1 200 "));
    (sidecar, http, dir)
}

fn exchange(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn metrics_health_and_readiness_are_told() {
    let _w = Watchdog::seconds(60);
    let (mut sidecar, http, _dir) = sidecar(Options::new().patient());
    let metrics = get(&http, "/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
    assert!(metrics.contains("nexus_handler_executions_total{status=\"success\"} 1"), "{metrics}");
    let length: usize =
        metrics.lines().find_map(|l| l.strip_prefix("Content-Length: ")).and_then(|n| n.parse().ok()).unwrap();
    assert_eq!(metrics.split("\r\n\r\n").nth(1).unwrap().len(), length);
    assert!(get(&http, "/healthz").contains("\r\n\r\nalive\nisolation "));
    assert!(get(&http, "/readyz?verbose").ends_with("\r\n\r\nready\n"));
    assert!(get(&http, "/").starts_with("HTTP/1.1 404 "));
    let post = exchange(UnixStream::connect(&http).unwrap(), "POST /metrics HTTP/1.1\r\n\r\n");
    assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("\r\nAllow: GET, HEAD\r\n"), "{post}");
    let head = exchange(UnixStream::connect(&http).unwrap(), "HEAD /readyz HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("Content-Length: 6\r\n"), "{head}");
    assert!(head.ends_with("\r\n\r\n"), "a head has no body: {head}");
    let mut client = sidecar.connect();
    let running = client.start("for (;;);");
    eventually("the handler runs", SOON, || client.stats().active_instances == 1);
    assert!(get(&http, "/healthz").starts_with("HTTP/1.1 200 "), "a busy sidecar is alive");
    sidecar.signal(Signal::SIGTERM);
    eventually("it says that it is draining", SOON, || get(&http, "/readyz").starts_with("HTTP/1.1 503 "));
    assert!(get(&http, "/healthz").starts_with("HTTP/1.1 200 "));
    // the drain waits for it
    assert!(client.cancel_request(running));
    client.segment(running);
    assert_eq!(sidecar.exit_code(SOON), 0);
    assert!(!http.exists(), "the socket is left behind");
}

#[test]
fn a_loopback_address_works_and_no_other_is_taken_unless_that_is_allowed() {
    let _w = Watchdog::seconds(60);
    // a free port; somebody else may take it first, then the next one is tried
    let on_a_port = |options: &dyn Fn(u16) -> Options| {
        let found = (0..10).find_map(|_| {
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let dir = TempDir::new();
            let mut sidecar = options(address.port()).listen_on(&dir.join("s.sock"));
            eventually("it serves or has ended", SOON, || !sidecar.is_running() || sidecar.path().exists());
            sidecar.is_running().then_some((sidecar, address, dir))
        });
        found.expect("a free port")
    };
    let (sidecar, address, _dir) = on_a_port(&|port| Options::new().flag("http-listen", format!("127.0.0.1:{port}")));
    sidecar.wait_until_ready();
    sidecar.connect().still_works();
    // it serves a moment before it says so
    eventually("it is ready", SOON, || {
        let answer = exchange(TcpStream::connect(address).unwrap(), "GET /readyz HTTP/1.0\r\n\r\n");
        answer.starts_with("HTTP/1.1 200 ")
    });
    let dir = TempDir::new();
    let mut refused = Options::new().flag("http-listen", "0.0.0.0:0").listen_on(&dir.join("s.sock"));
    assert_eq!(refused.exit_code(SOON), 3);
    assert!(
        refused.stderr().contains("httpListen") && refused.stderr().contains("httpAllowRemote"),
        "{}",
        refused.stderr()
    );
    let (sidecar, address, _dir) = on_a_port(&|port| {
        Options::new().flag("http-listen", format!("0.0.0.0:{port}")).flag("http-allow-remote", true)
    });
    sidecar.wait_until_ready();
    let answer = exchange(TcpStream::connect(address).unwrap(), "GET /healthz HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// Peers that begin a request and do not finish it.
fn stall(slow: &mut Vec<UnixStream>, http: &Path) {
    slow.clear();
    slow.extend((0..15).map(|_| UnixStream::connect(http).unwrap()));
    for mut stream in slow.iter() {
        stream.write_all(b"GET /met").unwrap();
    }
}

#[test]
fn peers_that_send_slowly_nothing_or_rubbish_hold_up_nobody() {
    let _w = Watchdog::seconds(60);
    let (sidecar, http, _dir) = sidecar(Options::new());
    let mut slow: Vec<UnixStream> = Vec::new();
    let answered = || time(|| assert!(get(&http, "/readyz").starts_with("HTTP/1.1 200 ")));
    in_time("it is answered while others are slow", Duration::from_millis(200), answered, || {
        stall(&mut slow, &http);
        let taken = answered();
        // the controls are of a sidecar that has nobody else
        slow.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
        taken
    });
    let began = Instant::now();
    stall(&mut slow, &http);
    for rubbish in [&b"\x16\x03\x01\x02\x00"[..], b"GET", &[b'A'; 20_000], b"GET / HTTP/9.9\r\n\r\n"] {
        let mut stream = UnixStream::connect(&http).unwrap();
        let _ = stream.write_all(rubbish);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    // each is closed when its time is over
    for mut stream in &slow {
        stream.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(stream.read(&mut [0; 64]).unwrap(), 0);
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(HTTP_TIMEOUT_MS), "{took:?}");
    sidecar.connect().still_works();
}

#[test]
fn more_peers_than_are_taken_at_once_do_not_keep_a_probe_out() {
    let _w = Watchdog::seconds(60);
    let (sidecar, http, _dir) = sidecar(Options::new());
    let crowd: Vec<UnixStream> = (0..40).map(|_| UnixStream::connect(&http).unwrap()).collect();
    assert!(get(&http, "/healthz").starts_with("HTTP/1.1 200 "));
    // the first of the crowd has gone for the last ones, and for the probe
    let mut first = &crowd[0];
    first.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(first.read(&mut [0; 64]).unwrap(), 0);
    sidecar.connect().still_works();
}
