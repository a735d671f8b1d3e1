//! What a ping takes beside work that no guest does: lists of executions, the ends of connections with large states, a flood of
//! connections, and a state that is made after a pause. Alone and beside take turns on one sidecar.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nexus_protocol::ClientMessage;
use nexus_protocol::message::{CreateState, Regions};
use nexus_tests::bench::Sample;
use nexus_tests::run::pack;
use nexus_tests::{Client, Options, Run, Sidecar};
use serde_json::{Map, Value, json};

use crate::fairness::compare;
use crate::{Scale, summary};

const TURNS: usize = 5;
/// Of one turn.
const PINGS: usize = 1_000;
/// Keys of a state that is large.
const KEYS: usize = 200_000;
/// Executions that wait while they are listed, and names that each has.
const WAITING: usize = 200;
const NAMES: usize = 5_000;
/// Longer than the watchdog looks about after the last run.
const IDLE: Duration = Duration::from_millis(400);

pub fn figures(scale: Scale) -> Map<String, Value> {
    let mut figures = Map::new();
    let pings = scale.of(PINGS * TURNS) / TURNS;
    let state = pack(&json!((0..KEYS).map(|n| (format!("key{n:06}"), json!(n))).collect::<Map<_, _>>()));
    let sidecar = Options::new().patient().flag("log", "error").flag("max-instances", 2).listen();
    beside(&mut figures, &sidecar, "pingBesideLists", pings, |done| {
        let mut busy = sidecar.connect();
        let tokens: Vec<String> = (0..NAMES).map(|n| format!("state:read:key{n}")).collect();
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        let ids: Vec<u32> =
            (0..WAITING).map(|_| busy.start(Run::source("for (;;);").grant(&tokens).timeout_ms(60_000))).collect();
        let mut operator = sidecar.connect();
        while !done.load(Ordering::Relaxed) {
            operator.executions();
        }
        for id in ids {
            let _ = busy.cancel_request(id);
        }
    });
    beside(&mut figures, &sidecar, "pingBesideEnds", pings, |done| {
        while !done.load(Ordering::Relaxed) {
            let mut owner = sidecar.connect();
            let _ = owner.try_create_state(&state);
        }
    });
    beside(&mut figures, &sidecar, "pingBesideConnects", pings, |done| {
        while !done.load(Ordering::Relaxed) {
            drop(UnixStream::connect(sidecar.path()));
        }
    });
    after_idle(&mut figures, &sidecar, scale.of(50), &state);
    figures
}

fn ping(client: &mut Client, pings: usize) -> Sample {
    Sample::of(0, pings, || client.ping())
}

fn beside(
    figures: &mut Map<String, Value>,
    sidecar: &Sidecar,
    name: &str,
    pings: usize,
    work: impl Fn(&AtomicBool) + Sync,
) {
    let mut healthy = sidecar.connect();
    let (mut alone, mut among) = (Sample::default(), Sample::default());
    for _ in 0..TURNS {
        std::thread::sleep(IDLE);
        alone.extend(&ping(&mut healthy, pings));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| work(&done));
            std::thread::sleep(Duration::from_millis(50));
            among.extend(&ping(&mut healthy, pings));
            done.store(true, Ordering::Relaxed);
        });
    }
    compare(figures, name, &alone, &among);
}

/// One ping while a state is made, after a pause and without one.
fn after_idle(figures: &mut Map<String, Value>, sidecar: &Sidecar, rounds: usize, state: &[u8]) {
    let (mut owner, mut healthy) = (sidecar.connect(), sidecar.connect());
    let create = ClientMessage::CreateState(CreateState { state: Some(state), regions: Regions::NONE });
    for (name, pause) in [("pingBesideCreate", Duration::ZERO), ("pingBesideCreateAfterIdle", IDLE)] {
        let taken: Vec<Duration> = (0..rounds)
            .map(|_| {
                std::thread::sleep(pause);
                let id = owner.send(&create);
                let started = Instant::now();
                healthy.ping();
                let took = started.elapsed();
                let nexus_tests::Answer::StateCreated { id, .. } = owner.wait(id) else { panic!("a state is made") };
                owner.dispose_state(&id);
                took
            })
            .collect();
        figures.insert(name.into(), summary(&Sample::from(taken)));
    }
}
