//! What an entry of the compile cache on disk takes: looking for one that is not there, reading and verifying one, handing one
//! over to the writer, and opening a full directory.
//!
//! `cargo bench -p nexus-sidecar --bench cache`. Every handler that is read is checked.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_protocol::message::SuspendMode;
use nexus_sidecar::cache::LowerTier;
use nexus_sidecar::cache::disk::DiskTier;
use nexus_sidecar::cache::{Handler, HandlerDigest};

const ENGINE: [u8; 32] = [4; 32];
const BOUND: u64 = 256 << 20;
const HANDLERS: usize = 500;

fn main() {
    let scratch = Scratch::new();
    for bytes in [1000, 10_000, 100_000] {
        let handlers: Vec<_> = (0..HANDLERS).map(|n| Arc::new(handler_of(&format!("{bytes} {n}"), bytes))).collect();
        let tier = scratch.open();
        report(bytes, "miss", &handlers, |handler| assert!(tier.read(&handler.digest).is_none()));
        // a queue that is full drops what comes: so the rounds end when all is written
        report(bytes, "hand over to the writer", &handlers, |handler| tier.write(handler));
        // its writer ends with the queue
        drop(tier);
        let tier = scratch.open();
        let written: Vec<_> = handlers.into_iter().filter(|handler| tier.read(&handler.digest).is_some()).collect();
        assert!(!written.is_empty(), "nothing was written");
        report(bytes, "read and verify", &written, |handler| {
            assert_eq!(tier.read(&handler.digest).expect("it is there").bytecode.len(), bytes);
        });
    }
    let started = Instant::now();
    drop(scratch.open());
    println!("open and list the directory: {:?}", started.elapsed());
}

fn handler_of(source: &str, bytecode_bytes: usize) -> Handler {
    Handler {
        digest: HandlerDigest::new(&ENGINE, source),
        source: source.into(),
        bytecode: vec![7; bytecode_bytes].into(),
        capabilities: Vec::new(),
        suspend_mode: SuspendMode::Await,
        why: "".into(),
        warnings: [].into(),
        unparsed: None,
        took: Duration::from_millis(1),
    }
}

fn report(bytes: usize, what: &str, handlers: &[Arc<Handler>], mut act: impl FnMut(&Arc<Handler>)) {
    let mut times: Vec<Duration> = handlers
        .iter()
        .map(|handler| {
            let started = Instant::now();
            act(handler);
            started.elapsed()
        })
        .collect();
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!("{bytes:>7} bytes, {what:<24} p50 {:>10.1?}   p99 {:>10.1?}", at(50), at(99));
}

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("nexus-cache-bench-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path).expect("a directory of our own");
        Self(path)
    }

    fn open(&self) -> DiskTier {
        DiskTier::open(&self.0, ENGINE, BOUND).expect("the directory can be used")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
