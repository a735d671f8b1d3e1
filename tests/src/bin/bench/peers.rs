//! What a ping takes beside work that no guest does: lists of executions, ends of connections with large states, crowds that
//! come and go, frames that are large, and a state that is made after a pause.
//!
//! Alone, beside a control and beside the work take turns on one sidecar. In the control the peers of that kind compute, and ask
//! for nothing: on few processors whoever computes takes its share of them, whatever it is about. Where that alone makes a ping
//! three times as slow, the work is held against the control, and the figures say so.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nexus_protocol::ClientMessage;
use nexus_protocol::message::{CreateState, Regions};
use nexus_tests::bench::Sample;
use nexus_tests::run::pack;
use nexus_tests::{Client, Options, Run, Sidecar};
use serde_json::{Map, Value, json};

use crate::fairness::ratios;
use crate::{Scale, summary};

const TURNS: usize = 5;
/// Of one turn.
const PINGS: usize = 1_000;
/// Keys of a state that is large.
const KEYS: usize = 200_000;
/// Executions that wait while they are listed, and names that each has.
const WAITING: usize = 200;
const NAMES: usize = 5_000;
/// Connections that leave at once.
const CROWD: usize = 200;
/// Of a frame that is refused when it has been read.
const FRAME_BYTES: usize = 8 << 20;
/// Longer than the watchdog looks about after the last run.
const IDLE: Duration = Duration::from_millis(400);
/// As many times of alone may a ping take at its worst.
const GOAL: f64 = 3.0;

pub fn figures(scale: Scale) -> Map<String, Value> {
    let mut figures = Map::new();
    let pings = scale.of(PINGS * TURNS) / TURNS;
    let state = pack(&json!((0..KEYS).map(|n| (format!("key{n:06}"), json!(n))).collect::<Map<_, _>>()));
    let sidecar = Options::new().patient().flag("log", "error").flag("max-instances", 2).listen();
    beside(&mut figures, &sidecar, "pingBesideLists", pings, |company| {
        let mut busy = sidecar.connect();
        let tokens: Vec<String> = (0..NAMES).map(|n| format!("state:read:key{n}")).collect();
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        let ids: Vec<u32> =
            (0..WAITING).map(|_| busy.start(Run::source("for (;;);").grant(&tokens).timeout_ms(60_000))).collect();
        let mut operator = sidecar.connect();
        company.keep_on(|| {
            operator.executions();
        });
        for id in ids {
            let _ = busy.cancel_request(id);
        }
    });
    beside(&mut figures, &sidecar, "pingBesideEnds", pings, |company| {
        company.keep_on(|| {
            let mut owner = sidecar.connect();
            let _ = owner.try_create_state(&state);
        });
    });
    beside(&mut figures, &sidecar, "pingBesideConnects", pings, |company| {
        company.keep_on(|| drop(UnixStream::connect(sidecar.path())));
    });
    beside(&mut figures, &sidecar, "pingBesideGreetings", pings, |company| {
        company.keep_on(|| drop(sidecar.connect()));
    });
    beside(&mut figures, &sidecar, "pingBesideCrowds", pings, |company| {
        company.keep_on(|| drop((0..CROWD).map(|_| sidecar.connect()).collect::<Vec<_>>()));
    });
    let frame = [&(FRAME_BYTES as u32).to_le_bytes()[..], &[0x93, 9, 5, 0xc0], &vec![0; FRAME_BYTES - 4]].concat();
    beside(&mut figures, &sidecar, "pingBesideLargeFrames", pings, |company| {
        let mut sender = sidecar.connect();
        company.keep_on(|| {
            sender.write_raw(&frame);
            sender.next_reply();
        });
    });
    after_idle(&mut figures, &sidecar, scale.of(50), &state);
    figures
}

fn ping(client: &mut Client, pings: usize) -> Sample {
    Sample::of(0, pings, || client.ping())
}

/// What goes on beside the pings.
struct Company {
    done: AtomicBool,
    asks: bool,
}

impl Company {
    /// Until the pings are answered: asks for something, or computes.
    fn keep_on(&self, mut ask: impl FnMut()) {
        while !self.done.load(Ordering::Relaxed) {
            if self.asks {
                ask();
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

fn beside(
    figures: &mut Map<String, Value>,
    sidecar: &Sidecar,
    name: &str,
    pings: usize,
    work: impl Fn(&Company) + Sync,
) {
    let mut healthy = sidecar.connect();
    let [mut alone, mut control, mut among] = [const { Sample::new() }; 3];
    for _ in 0..TURNS {
        std::thread::sleep(IDLE);
        alone.extend(&ping(&mut healthy, pings));
        for (asks, sample) in [(false, &mut control), (true, &mut among)] {
            let company = Company { done: AtomicBool::new(false), asks };
            std::thread::scope(|scope| {
                scope.spawn(|| work(&company));
                std::thread::sleep(Duration::from_millis(50));
                sample.extend(&ping(&mut healthy, pings));
                company.done.store(true, Ordering::Relaxed);
            });
        }
    }
    for (which, sample) in [("Alone", &alone), ("Control", &control), ("", &among)] {
        figures.insert(format!("{name}{which}"), summary(sample));
    }
    ratios(figures, &format!("{name}Control"), &alone, &control);
    ratios(figures, name, &alone, &among);
    ratios(figures, &format!("{name}ToControl"), &control, &among);
    let times = |below: &Sample| among.p99_us() / below.p99_us();
    let (against, times) = match control.p99_us() / alone.p99_us() {
        by_itself if by_itself > GOAL => ("the control, which alone is beyond it", times(&control)),
        _ => ("alone", times(&alone)),
    };
    let verdict = if times <= GOAL { "met" } else { "not met" };
    figures
        .insert(format!("{name}Goal"), json!(format!("{verdict}: p99 {times:.1} times of {against}; at most {GOAL}")));
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
