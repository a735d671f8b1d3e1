//! What a handler's calls take that are outstanding together, beside as many that are made one after the other.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use nexus_client::{Client, Extensions, SpawnOptions};
use nexus_protocol::message::Status;
use nexus_tests::process::binary;
use nexus_tests::temp::TempDir;
use nexus_tests::{Options, Run};
use serde_json::{Map, Value, json};

use crate::Scale;
use crate::socket::Lean;

const CALLS: usize = 2_000;
/// The best of so many counts: other programs take the processors away at any time.
const ROUNDS: usize = 5;

/// With a kilobyte each. Bytes: what all answers come to.
pub fn figures(_: Scale) -> Map<String, Value> {
    let call = "$ext.a.b('x'.repeat(1000) + i)";
    let together = format!("return (await Promise.all(Array.from({{ length: {CALLS} }}, (_, i) => {call}))).length");
    let in_turn = format!("let n = 0; for (let i = 0; i < {CALLS}; i++) {{ await {call}; n++ }} return n");
    let mut figures = Map::new();
    for (name, source) in [("together", &together), ("inTurn", &in_turn)] {
        let (ms, bytes) = lean(source);
        figures.insert(format!("{name}Bytes"), json!(bytes));
        figures.insert(format!("{name}Ms"), json!(rounded(ms)));
        figures.insert(format!("{name}RustClientMs"), json!(rounded(client(source))));
    }
    for (name, of, to) in [
        ("bytesRatio", "togetherBytes", "inTurnBytes"),
        ("ratio", "togetherMs", "inTurnMs"),
        ("rustClientRatio", "togetherRustClientMs", "inTurnRustClientMs"),
    ] {
        let ratio = figures[of].as_f64().zip(figures[to].as_f64()).map(|(of, to)| (of / to * 100.0).round() / 100.0);
        figures.insert(name.into(), json!(ratio));
    }
    figures
}

fn rounded(ms: f64) -> f64 {
    (ms * 10.0).round() / 10.0
}

/// Answered one at a time, by a client that does nothing else.
fn lean(source: &str) -> (f64, u64) {
    let sidecar = Options::new().patient().flag("log", "error").listen();
    let mut lean = Lean::over(UnixStream::connect(sidecar.path()).expect("the sidecar is there"));
    let run = Run::source(source).grant(&["ext:a"]);
    let (mut ms, mut bytes) = (f64::INFINITY, 0);
    for _ in 0..ROUNDS {
        let (started, before) = (Instant::now(), lean.received_bytes);
        let mut waiting: VecDeque<String> = VecDeque::new();
        lean.send(1, &run);
        while let Status::Suspended = lean.receive(|_, result| {
            assert!(result.error.is_none(), "{:?}", result.error);
            waiting.extend(result.suspensions.iter().map(|call| call.id.to_owned()));
            result.status
        }) {
            let id = waiting.pop_front().expect("a call waits");
            lean.resume(1, &id, &[0xc0]);
        }
        ms = ms.min(started.elapsed().as_secs_f64() * 1e3);
        bytes = lean.received_bytes - before;
    }
    (ms, bytes)
}

/// Answered by `run`, as soon as they can be.
fn client(source: &str) -> f64 {
    let dir = TempDir::new();
    let client = Client::spawn(SpawnOptions::new().binary(binary()).cache_dir(dir.path()).timeout_ms(60_000))
        .wait()
        .expect("a sidecar");
    let extensions = Extensions::new().async_method("a", "b", |_| async { Ok(()) });
    let once = || {
        let started = Instant::now();
        let outcome = client.run(source).grant("ext:a").extensions(extensions.clone()).wait().expect("it succeeds");
        assert_eq!(outcome.value::<usize>().expect("a number"), CALLS);
        started.elapsed().as_secs_f64() * 1e3
    };
    (0..ROUNDS).map(|_| once()).fold(f64::INFINITY, f64::min)
}
