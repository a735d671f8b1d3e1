//! Connections that come, ask for what no cache knows, and leave, beside others that mind their own business.
//!
//! What is looked for is an end that reaches somebody for whom it was not meant: the innocent cancel nothing, leave nothing
//! and keep far below every limit, so each of their executions has to succeed with its own value.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nexus_protocol::ClientMessage;
use nexus_protocol::message::{Cancel, Check, Precompile, Status};
use serde_json::json;

use crate::{Client, Options, Rng, Run, Sidecar};

/// Connections that churn at the same time.
const CHURNING: u64 = 3;
/// Innocent connections, and what each has under way.
const INNOCENT: u64 = 4;
const IN_FLIGHT: usize = 2;
/// New sources of a connection beside its last request, and state keys that each names.
const CHECKS: usize = 8;
const NAMES: usize = 2_000;

/// What a churn found.
#[derive(Debug)]
pub struct Report {
    /// Innocent executions.
    pub innocent: usize,
    /// Connections that left.
    pub left: u64,
    /// Innocent executions that did not end as they had to, in words.
    pub wrong: Vec<String>,
}

/// Runs `innocent` executions beside the churn.
pub fn run(innocent: usize, seed: u64) -> Report {
    let sidecar = Options::new().patient().listen();
    let (done, left, wrong) = (AtomicBool::new(false), AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for number in 0..CHURNING {
            let (sidecar, done, left) = (&sidecar, &done, &left);
            scope.spawn(move || {
                let mut rng = Rng::new(seed ^ ((number + 1) << 32));
                while !done.load(Ordering::Relaxed) {
                    come_and_go(sidecar, &mut rng);
                    left.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let share = innocent.div_ceil(INNOCENT as usize);
        let threads: Vec<_> = (0..INNOCENT)
            .map(|number| {
                let (sidecar, wrong) = (&sidecar, &wrong);
                scope.spawn(move || {
                    let found = Innocent::new(sidecar, Rng::new(seed ^ ((number + 1) << 48))).run(share);
                    wrong.lock().unwrap().extend(found);
                })
            })
            .collect();
        let ended: Vec<_> = threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok), "an innocent connection ended");
    });
    Report {
        innocent: innocent.next_multiple_of(INNOCENT as usize),
        left: left.into_inner(),
        wrong: wrong.into_inner().unwrap(),
    }
}

/// One connection that asks for much that is new and is gone before, while or after that is done.
fn come_and_go(sidecar: &Sidecar, rng: &mut Rng) {
    let mut client = sidecar.connect();
    // what has many names keeps the host at it for a while after it was compiled
    let names: String = (0..NAMES).map(|n| format!("$state.k{n};")).collect();
    let mut new = || format!("{names}return {}", rng.next_u64());
    for source in [(); CHECKS].map(|()| new()) {
        client.send(&ClientMessage::Check(Check { source: &source }));
    }
    let source = new();
    let last = match rng.below(8) {
        0 | 1 => client.send(&ClientMessage::Check(Check { source: &source })),
        2 | 3 => {
            let precompile = Precompile { source: &source, handler_name: None, suspend_mode: None };
            client.send(&ClientMessage::Precompile(precompile))
        }
        4 => client.start(&*source),
        5 => {
            let id = client.start(&*source);
            client.send(&ClientMessage::Cancel(Cancel::Request(id)))
        }
        // one whose time is over while it is compiled, or soon after
        6 => client.start(Run::source(format!("for (;;); {source}")).timeout_ms(1 + rng.below(3) as u64)),
        _ => client.start(Run::source(format!("const r = $ext.a.b(); {source} + r")).grant(&["ext:a"])),
    };
    match rng.below(3) {
        0 => drop(client.wait(last)),
        _ => std::thread::sleep(Duration::from_micros(rng.below(500) as u64)),
    }
}

/// A connection that wants nothing but its own answers.
struct Innocent {
    client: Client,
    rng: Rng,
    /// Requests, and what each is to come to; None: a suspended execution comes first.
    open: Vec<(u32, u64, bool)>,
    wrong: Vec<String>,
}

impl Innocent {
    fn new(sidecar: &Sidecar, rng: Rng) -> Self {
        Self { client: sidecar.connect(), rng, open: Vec::new(), wrong: Vec::new() }
    }

    fn run(mut self, executions: usize) -> Vec<String> {
        let mut begun = 0;
        while begun < executions || !self.open.is_empty() {
            while begun < executions && self.open.len() < IN_FLIGHT {
                self.begin();
                begun += 1;
            }
            self.take_one();
        }
        self.wrong
    }

    fn begin(&mut self) {
        let (n, suspends) = (self.rng.below(1 << 20) as u64, self.rng.below(8) == 0);
        let source = if suspends {
            "return $args + await $ext.a.b()"
        } else {
            "let s = 0; for (let i = 0; i < 10000; i++) s += i & 1; return s + $args - 5000"
        };
        let id = self.client.start(Run::source(source).args(&json!(n)).grant(&["ext:a"]));
        self.open.push((id, n, suspends));
    }

    fn take_one(&mut self) {
        let (id, n, suspends) = self.open.remove(0);
        let segment = self.client.segment(id);
        match (suspends, segment.status) {
            (true, Status::Suspended) => {
                let id = self.client.start_resume(&segment.call().id, &json!(0));
                self.open.push((id, n, false));
            }
            (false, Status::Success) if segment.value() == json!(n) => {}
            _ => self.wrong.push(format!("{:?} of {n}: {:?}", segment.status, segment.error)),
        }
    }
}
