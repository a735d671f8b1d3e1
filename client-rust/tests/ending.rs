//! Dropping and shutting down while the next sidecar is being started or reached: nothing waits for that. Starts may take ten
//! minutes here, so that a wait for one is a test that hangs.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nexus_client::{Call, Client, ClientOptions, Error, ErrorCode, RestartPolicy, SpawnOptions, StartError};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, connect, listen, socket};
use support::{eventually, options, scratch, sidecar_binary, watched};

fn patient() -> ClientOptions {
    let policy = RestartPolicy::default().max_crashes(1_000);
    ClientOptions::from(policy).start_timeout(Duration::from_secs(600))
}

fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

fn is_ended(call: Call<()>) {
    let error = call.wait().unwrap_err();
    let Error::Start(start) = &error else { panic!("{error:?}") };
    assert!(matches!(**start, StartError::Ended), "{error:?}");
    assert_eq!((error.code(), error.retryable()), (ErrorCode::SidecarGone, false));
}

/// Ends the sidecar, and waits until the client knows: the next call begins the next start.
fn hear_of(client: &Client, end: impl FnOnce()) {
    let last = client.execute("for (;;);").start();
    end();
    assert_eq!(last.wait().unwrap_err().code(), ErrorCode::SidecarGone);
}

/// A client whose connection has ended, and a listener in the sidecar's place.
fn orphaned(name: &str) -> (Client, UnixListener, PathBuf) {
    let directory = scratch(name);
    let path = directory.join("made-by-it/s");
    let mut sidecar = Command::new(sidecar_binary())
        .args(["serve".as_ref(), "--listen".as_ref(), path.as_os_str()])
        .args(["--cache-dir".as_ref(), directory.join("cache").as_os_str()])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("it listens", || UnixStream::connect(&path).is_ok());
    let client = Client::connect_with(&path, patient()).wait().unwrap();
    hear_of(&client, || sidecar.kill().unwrap());
    sidecar.wait().unwrap();
    let _ = fs::remove_file(&path);
    (client, UnixListener::bind(&path).unwrap(), path)
}

/// Connections that nobody accepts, until there is no room for one more.
fn fill(listener: &UnixListener, path: &Path) -> Vec<std::os::fd::OwnedFd> {
    listen(listener, Backlog::new(1).unwrap()).unwrap();
    let address = UnixAddr::new(path).unwrap();
    let mut queued = Vec::new();
    loop {
        let one = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
        if connect(std::os::fd::AsRawFd::as_raw_fd(&one), &address).is_err() {
            return queued;
        }
        queued.push(one);
    }
}

#[test]
fn a_dropped_client_does_not_wait_for_a_listener_that_accepts_nobody() {
    watched(|| {
        let (client, listener, path) = orphaned("full");
        let _queued = fill(&listener, &path);
        let call = client.ping();
        drop(client);
        is_ended(call);
    });
}

#[test]
fn a_shutdown_does_not_wait_for_a_listener_that_accepts_nobody() {
    watched(|| {
        let (client, listener, path) = orphaned("full-shutdown");
        let _queued = fill(&listener, &path);
        let call = client.ping();
        client.shutdown().wait().unwrap();
        is_ended(call);
        assert_eq!(client.ping().wait().unwrap_err().code(), ErrorCode::SidecarGone);
        client.shutdown().wait().expect("a second one has nothing to do");
    });
}

#[test]
fn a_dropped_client_does_not_wait_for_a_peer_that_says_nothing() {
    watched(|| {
        let (client, listener, _) = orphaned("silent");
        let call = client.ping();
        let (_silent, _) = listener.accept().unwrap();
        drop(client);
        is_ended(call);
    });
}

#[test]
fn a_program_that_says_nothing_is_killed_by_a_drop_and_by_a_shutdown() {
    watched(|| {
        for drops in [true, false] {
            let folder = scratch(if drops { "mute-drop" } else { "mute-shutdown" });
            let (mute, program, pid) = (folder.join("mute"), folder.join("sidecar"), folder.join("pid"));
            let script = format!(
                "#!/bin/sh\nif [ ! -e {} ]; then exec {} \"$@\"; fi\necho $$ > {}.new; mv {}.new {}; exec sleep 1000\n",
                mute.display(),
                sidecar_binary().display(),
                pid.display(),
                pid.display(),
                pid.display()
            );
            fs::write(&program, script).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
            let options = options().client(patient());
            let client = Client::spawn(options.binary(&program)).wait().unwrap();
            fs::write(&mute, "").unwrap();
            hear_of(&client, || kill(client.child_pid().unwrap()));
            let call = client.ping();
            eventually("it was started", || pid.exists());
            if drops {
                drop(client);
            } else {
                client.shutdown().wait().unwrap();
            }
            is_ended(call);
            let pid = fs::read_to_string(&pid).unwrap();
            assert!(!Path::new("/proc").join(pid.trim()).exists(), "process {pid} is left");
        }
    });
}

#[test]
fn a_start_may_take_as_long_as_the_option_says() {
    watched(|| {
        let path = scratch("slow").join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let short = ClientOptions::new().start_timeout(Duration::from_millis(50));
        let silent = Client::connect_with(&path, short).wait().unwrap_err();
        let Error::Start(start) = &silent else { panic!("{silent:?}") };
        assert!(matches!(**start, StartError::NoHello(_)), "{silent:?}");
        let _queued = fill(&listener, &path);
        let full = Client::connect_with(&path, short).wait().unwrap_err();
        assert!(full.to_string().contains("cannot connect"), "{full}");
        let mute = SpawnOptions::new().binary("/bin/sleep").client(short);
        assert_eq!(Client::spawn(mute).wait().unwrap_err().code(), ErrorCode::SidecarGone);
    });
}
