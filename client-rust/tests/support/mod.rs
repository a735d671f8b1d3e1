//! What the tests share: the real sidecar, and a watchdog.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nexus_client::{Client, SpawnOptions};

/// The sidecar's program. There is no test without it: one that is skipped looks like one that passes.
pub fn sidecar_binary() -> PathBuf {
    let from_env = std::env::var_os("NEXUS_SIDECAR_BIN").filter(|path| !path.is_empty()).map(PathBuf::from);
    let path =
        from_env.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/nexus-sidecar"));
    assert!(
        path.is_file(),
        "these tests need the sidecar: build it (cargo build --release -p nexus-sidecar) or name it in NEXUS_SIDECAR_BIN; \
         there is none at {}",
        path.display()
    );
    path
}

/// Options for a sidecar that keeps nothing on disk outside of a directory of its own.
pub fn options() -> SpawnOptions {
    let options = SpawnOptions::new().binary(sidecar_binary()).max_instances(4).cache_dir(scratch("cache"));
    // times that no test is about are long: a machine that is busy makes nothing end before it would have been done
    options.timeout_ms(50_000).max_queue_ms(50_000)
}

pub fn client() -> Client {
    Client::spawn(options()).wait().expect("the sidecar starts")
}

/// A directory of this test run's own.
pub fn scratch(name: &str) -> PathBuf {
    let unique = format!("{name}-{}-{:?}", std::process::id(), std::thread::current().id());
    // with a longer one before it the name of a socket, of which a kernel takes 107 bytes, would have no room
    let base = Some(env!("CARGO_TARGET_TMPDIR")).filter(|base| base.len() <= 50).unwrap_or("/tmp");
    let path = Path::new(base).join(unique.replace(['(', ')'], "-"));
    // Others may not write there: a sidecar refuses to listen in a directory where they could replace its socket.
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).expect("a scratch directory");
    path
}

/// Runs a test that might hang: it fails when it takes too long.
pub fn watched(test: impl FnOnce() + Send + 'static) {
    watched_for(Duration::from_secs(300), test);
}

/// The same with a limit of its own.
pub fn watched_for(limit: Duration, test: impl FnOnce() + Send + 'static) {
    let (done, finished) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        test();
        let _ = done.send(());
    });
    if finished.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("the test hangs");
    }
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Waits until something holds that another process does in its own time.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
