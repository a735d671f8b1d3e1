//! The socket of a service: who may make it, who may reach it, and that one sidecar alone serves it.

use std::cell::RefCell;
use std::fs::{self, Permissions};
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nexus_protocol::message::ClientHello;
use nexus_protocol::{
    ClientMessage, ErrorCode, FrameDecoder, MAGIC, ProtocolVersion, RequestId, SidecarMessage, decode_sidecar,
};
use nexus_tests::http::get;
use nexus_tests::leaks::settled_counts;
use nexus_tests::temp::TempDir;
use nexus_tests::{Answer, Options, Reply, SOON, Watchdog, eventually, time};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt};

const NOBODY: u32 = 65534;

fn refused(path: &Path, why: &str) {
    let mut sidecar = Options::new().listen_on(path);
    assert_eq!(sidecar.exit_code(SOON), 3, "{}", sidecar.stderr());
    let stderr = sidecar.stderr();
    assert!(stderr.contains(why) && stderr.contains(&path.display().to_string()), "{why:?} is not in: {stderr}");
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

// ---- one sidecar ----

#[test]
fn of_a_hundred_racing_starts_exactly_one_serves() {
    let _w = Watchdog::seconds(180);
    let dir = TempDir::new();
    let path = dir.join("s.sock");
    let mut all: Vec<_> = (0..100).map(|_| Options::new().listen_on(&path)).collect();
    eventually("all but one have ended", Duration::from_secs(120), || {
        all.iter_mut().filter_map(|s| s.is_running().then_some(())).count() == 1
    });
    let at = all.iter_mut().position(|s| s.is_running()).unwrap();
    let winner = all.swap_remove(at);
    for loser in &mut all {
        assert_eq!(loser.exit_code(SOON), 4, "{}", loser.stderr());
        assert!(loser.stderr().contains(&path.display().to_string()), "{}", loser.stderr());
    }
    winner.wait_until_ready();
    winner.connect().still_works();
}

#[test]
fn a_second_start_names_the_process_that_serves() {
    let _w = Watchdog::seconds(60);
    let first = Options::new().listen();
    let mut second = Options::new().listen_on(first.path());
    assert_eq!(second.exit_code(SOON), 4);
    assert!(second.stderr().contains(&format!("another process ({})", first.pid())), "{}", second.stderr());
    let place = format!("serves {}", first.path().display());
    eventually("the first one says where it serves", SOON, || first.stderr().contains(&place));
}

#[test]
fn few_descriptors_are_told_at_the_start_and_when_they_are_used_up() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    let path = dir.join("s.sock");
    let mut limited = Command::new("prlimit");
    limited.arg("--nofile=64:64").arg(nexus_tests::process::binary()).args([
        "serve",
        "--max-instances",
        "1",
        "--listen",
    ]);
    let mut child =
        limited.arg(&path).stderr(std::process::Stdio::piped()).env("NEXUS_CACHE_DIR", "none").spawn().unwrap();
    eventually("it serves", SOON, || UnixStream::connect(&path).is_ok());
    let all: Vec<_> = (0..64).map_while(|_| UnixStream::connect(&path).ok()).collect();
    let mut one = nexus_tests::Client::over(UnixStream::connect(&path).unwrap());
    let Some(Reply { id: 0, answer: Answer::Error(refused) }) = one.next_reply() else { panic!("it is told why") };
    assert_eq!(refused.code, ErrorCode::Overloaded);
    assert!(one.is_closed(), "it is refused, not left waiting");
    drop(all);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGTERM).unwrap();
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{log}");
    assert!(log.contains("only 64 files may be open at once"), "{log}");
    assert!(log.contains("a connection is refused: Too many open files (os error 24); this process may open"), "{log}");
}

#[test]
fn sockets_whose_names_differ_in_their_endings_do_not_share_a_lock() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    let sidecars = ["a.sock", "a.other"].map(|name| Options::new().listen_on(&dir.join(name)));
    for sidecar in &sidecars {
        sidecar.wait_until_ready();
        sidecar.connect().still_works();
    }
}

#[test]
fn a_socket_that_somebody_else_put_there_is_not_removed_at_the_end() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    let path = dir.join("s.sock");
    let mut sidecar = Options::new().listen_on(&path);
    sidecar.wait_until_ready();
    // it knows which file is its own a moment after somebody can connect to it
    sidecar.connect().still_works();
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    sidecar.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(sidecar.exit_code(SOON), 0);
    assert!(path.exists());
}

// ---- where it may be ----

#[test]
fn a_directory_that_others_may_enter_is_refused() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    for mode in [0o755, 0o710, 0o701, 0o777, 0o1777] {
        set_mode(dir.path(), mode);
        refused(&dir.join("s.sock"), "chmod 0700");
    }
    set_mode(dir.path(), 0o700);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "something was left behind");
}

#[test]
fn a_directory_of_another_user_a_link_and_a_file_are_refused() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    let foreign = dir.join("foreign");
    fs::create_dir(&foreign).unwrap();
    set_mode(&foreign, 0o700);
    chown(&foreign, Some(NOBODY), None).expect("this test needs root");
    refused(&foreign.join("s.sock"), "belongs to user 65534");
    let real = dir.join("real");
    fs::create_dir(&real).unwrap();
    set_mode(&real, 0o700);
    symlink(&real, dir.join("link")).unwrap();
    refused(&dir.join("link").join("s.sock"), "symbolic link");
    fs::write(dir.join("file"), "").unwrap();
    refused(&dir.join("file").join("s.sock"), "is not a directory");
}

#[test]
fn a_path_that_no_socket_can_have_is_refused() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    let fits = 107 - dir.path().as_os_str().len() - 1;
    refused(&dir.join(&"x".repeat(fits + 1)), "the path has 108 bytes; a socket's can have 107");
    let sidecar = Options::new().listen_on(&dir.join(&"x".repeat(fits)));
    sidecar.wait_until_ready();
    sidecar.connect().still_works();
}

#[test]
fn a_lock_that_is_not_ours_is_refused() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    fs::write(dir.join("s.sock.lock"), "").unwrap();
    chown(dir.join("s.sock.lock"), Some(NOBODY), None).expect("this test needs root");
    refused(&dir.join("s.sock"), "lock file");
}

// ---- who may connect ----

/// What a client of user `nobody` gets for a good hello: how many bytes, or the error.
fn as_nobody(path: &Path) -> String {
    const PROGRAM: &str = "import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(60)
try:
    s.connect(sys.argv[1])
    s.sendall(bytes.fromhex(sys.argv[2]))
    print(len(s.recv(65536)))
except OSError as e:
    print(type(e).__name__)";
    let hello = ClientMessage::Hello(ClientHello {
        magic: MAGIC,
        min: ProtocolVersion::V2,
        max: ProtocolVersion::V2,
        client: "nobody",
    });
    let mut frame = Vec::new();
    hello.encode(RequestId(0), 1 << 16, &mut frame).unwrap();
    let hex: String = frame.iter().map(|b| format!("{b:02x}")).collect();
    let mut python = Command::new("python3");
    python.args(["-c", PROGRAM]).arg(path).arg(hex).current_dir("/").uid(NOBODY).gid(NOBODY);
    let output = python.output().expect("this test needs python3, and root");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn another_user_does_not_get_as_far_as_the_socket() {
    let _w = Watchdog::seconds(60);
    let sidecar = Options::new().listen();
    assert_eq!(as_nobody(sidecar.path()), "PermissionError");
    // not even where the directory was opened afterwards
    set_mode(sidecar.path().parent().unwrap(), 0o711);
    assert_eq!(as_nobody(sidecar.path()), "PermissionError");
    set_mode(sidecar.path(), 0o666);
    let answer = as_nobody(sidecar.path());
    assert!(["0", "ConnectionResetError", "BrokenPipeError"].contains(&answer.as_str()), "{answer}");
    eventually("it is logged", SOON, || sidecar.stderr().contains("user 65534 (process "));
    sidecar.connect().still_works();
}

#[test]
fn users_who_are_listed_may_connect_and_others_may_not() {
    let _w = Watchdog::seconds(60);
    for (listed, taken) in [("65534", true), ("65533,1", false)] {
        let dir = TempDir::new();
        set_mode(dir.path(), 0o711);
        let path = dir.join("s.sock");
        let sidecar = Options::new().flag("allow-uids", listed).listen_on(&path);
        sidecar.wait_until_ready();
        let answer = as_nobody(&path);
        assert_eq!(answer.parse().is_ok_and(|n: usize| n > 10), taken, "{listed}: {answer}");
        sidecar.connect().still_works();
    }
    // a directory that others may write into is refused still
    let dir = TempDir::new();
    set_mode(dir.path(), 0o777);
    let mut sidecar = Options::new().flag("allow-uids", "65534").listen_on(&dir.join("s.sock"));
    assert_eq!(sidecar.exit_code(SOON), 3);
}

/// A socket whose last descriptor takes a minute to close: it waits for what nobody reads. And that nobody.
fn lingering() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (theirs, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    while (&ours).write(&[0; 1 << 16]).is_ok() {}
    ours.set_nonblocking(false).unwrap();
    setsockopt(&ours, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 60 }).unwrap();
    (ours, theirs)
}

/// Whether they were taken. Kernels before 6.16 cannot refuse them.
fn send_along(stream: &UnixStream, bytes: &[u8], fds: &[RawFd]) -> bool {
    let rights = [ControlMessage::ScmRights(fds)];
    let sent = sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(bytes)], &rights, MsgFlags::empty(), None);
    assert!(sent.is_ok() || matches!(sent, Err(Errno::EPERM | Errno::EPIPE | Errno::ECONNRESET)), "{sent:?}");
    sent.is_ok()
}

/// Sidecars on this kernel, and on one that cannot refuse descriptors.
fn on_every_kernel() -> [Options; 2] {
    [Options::new(), Options::new().faults("rights:error=22")]
}

#[test]
fn a_descriptor_that_takes_a_minute_to_close_holds_nobody_up() {
    let _w = Watchdog::seconds(240);
    for options in on_every_kernel() {
        let dir = TempDir::new();
        let http = dir.join("http.sock");
        let mut sidecar = options.flag("http-listen", http.display()).listen();
        let mut healthy = sidecar.connect();
        let mut ping = Vec::new();
        ClientMessage::Ping.encode(RequestId(900), 1 << 16, &mut ping).unwrap();
        let mut unread = Vec::new();
        let mut longest = Duration::ZERO;
        // more than there are threads to close them
        for _ in 0..12 {
            let mut send_slow = |stream: &UnixStream, bytes: &[u8]| {
                let (slow, theirs) = lingering();
                unread.push(theirs);
                let sent = send_along(stream, bytes, &[slow.as_raw_fd()]);
                // where it was refused it is ours to close
                thread::spawn(|| drop(slow));
                sent
            };
            // in what is read
            let mut sender = sidecar.connect();
            if !send_slow(sender.stream(), &ping) {
                assert!(sender.write_raw(&ping), "the connection goes on");
            }
            sender.wait(900);
            // in what is not, since the connection is closed before
            if send_slow(sender.stream(), &[255; 8]) {
                send_slow(sender.stream(), &[1]);
                assert!(matches!(sender.next_reply().unwrap().answer, Answer::Error(_)));
            }
            // in the socket of another
            let (outer, inner) = UnixStream::pair().unwrap();
            send_slow(&inner, &[1]);
            drop(inner);
            send_along(&UnixStream::connect(sidecar.path()).unwrap(), &[1], &[outer.as_raw_fd()]);
            thread::spawn(|| drop(outer));
            // to the other door
            send_slow(&UnixStream::connect(&http).unwrap(), b"GET /healthz HTTP/1.1\r\n\r\n");
            longest = longest.max(time(|| healthy.still_works()));
        }
        let probed = time(|| assert!(get(&http, "/healthz").starts_with("HTTP/1.1 200")));
        assert!(longest.max(probed) < Duration::from_secs(30) && sidecar.is_running(), "{longest:?} {probed:?}");
    }
}

// shows P-no-descriptors
#[test]
fn descriptors_that_a_peer_sends_along_are_closed() {
    let _w = Watchdog::seconds(120);
    for options in on_every_kernel() {
        let sidecar = options.listen();
        let mut client = sidecar.connect();
        client.still_works();
        let before = settled_counts(sidecar.pid());
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let fds: Vec<RawFd> = vec![ours.as_raw_fd(); 253];
        for _ in 0..20 {
            let mut ping = Vec::new();
            ClientMessage::Ping.encode(RequestId(900), 1 << 16, &mut ping).unwrap();
            if !send_along(client.stream(), &ping, &fds) {
                assert!(client.write_raw(&ping));
            }
            client.wait(900);
        }
        client.still_works();
        eventually("descriptors, threads", SOON, || settled_counts(sidecar.pid()) == before);
    }
}

// shows P-connections
#[test]
fn more_connections_than_are_taken_are_closed_and_the_others_go_on() {
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().flag("log", "error").listen();
    let mut first = sidecar.connect();
    let mut hello = Vec::new();
    let version = ProtocolVersion::V2;
    ClientMessage::Hello(ClientHello { magic: MAGIC, min: version, max: version, client: "one of many" })
        .encode(RequestId(0), 1 << 16, &mut hello)
        .unwrap();
    // who says hello may stay for as long as this takes; who is closed already does not hear it
    let join = || {
        let mut stream = UnixStream::connect(sidecar.path()).unwrap();
        let _ = stream.write_all(&hello);
        stream
    };
    let crowd: Vec<UnixStream> = (0..1100).map(|_| join()).collect();
    first.still_works();
    crowd.iter().for_each(|stream| stream.set_nonblocking(true).unwrap());
    // those that are too many are told so first
    let told = RefCell::new(vec![Vec::new(); crowd.len()]);
    let closed = || {
        let is_closed = |(stream, told): (&UnixStream, &mut Vec<u8>)| {
            let mut chunk = [0; 1024];
            loop {
                match (&mut &*stream).read(&mut chunk) {
                    Ok(0) => return true,
                    Ok(n) => told.extend_from_slice(&chunk[..n]),
                    Err(e) => return e.kind() != ErrorKind::WouldBlock,
                }
            }
        };
        crowd.iter().zip(told.borrow_mut().iter_mut()).map(is_closed).filter(|closed| *closed).count()
    };
    let too_many = 1100 + 1 - nexus_protocol::limits::MAX_CONNECTIONS;
    eventually("those that are too many are closed", SOON, || closed() >= too_many);
    first.still_works();
    assert_eq!(closed(), too_many);
    let told = told.into_inner();
    // some had a place for looking after the sidecar before others came
    let refused = |told: &&Vec<u8>| {
        let (mut decoder, mut is_refused) = (FrameDecoder::new(1 << 16), false);
        decoder.push(told);
        while let Some(frame) = decoder.next_frame().unwrap() {
            let message = decode_sidecar(frame).unwrap().message;
            is_refused = matches!(message, SidecarMessage::Error(error) if error.code == ErrorCode::Overloaded);
        }
        is_refused
    };
    assert_eq!(told.iter().filter(refused).count(), too_many);
    drop(crowd);
    let mut again = None;
    eventually("there is room again", SOON, || {
        again = sidecar.try_connect();
        again.is_some()
    });
    again.expect("there is one").still_works();
}
