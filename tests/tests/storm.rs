//! Several clients do everything at once, at random and from one seed: whatever the order, every request is answered exactly
//! once, with an outcome that it may have, and nothing is left behind. `NEXUS_STORM_SEED` chooses another storm.

use std::collections::HashMap;

use nexus_protocol::message::{Cancel, Resolution, Resume, Status};
use nexus_protocol::{ClientMessage, ErrorCode};
use nexus_tests::leaks::settled_counts;
use nexus_tests::{Answer, Client, Options, Reply, Rng, Run, SOON, Segment, Sidecar, Watchdog, eventually};
use serde_json::json;

const SEED: u64 = 5_705;
const CLIENTS: u64 = 4;
const STEPS: usize = 500;
const MAX_OPEN: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Asked {
    Tiny(u64),
    Suspending,
    Endless,
    Throwing,
    Resume,
    Cancel,
    Ping,
}

struct Storm<'a> {
    sidecar: &'a Sidecar,
    rng: Rng,
    client: Client,
    open: HashMap<u32, Asked>,
    suspensions: Vec<String>,
    answered: usize,
}

impl Storm<'_> {
    fn step(&mut self) {
        let (message_run, asked) = match self.rng.below(20) {
            0..=6 => {
                let n = self.rng.next_u64() >> 20;
                (
                    Run::source("$state.n = $args; return $args").args(&json!(n)).grant(&["state:write:n"]),
                    Asked::Tiny(n),
                )
            }
            7..=10 => {
                let source = "return (await Promise.all([$ext.a.b(1), $ext.a.b(2)])).length";
                (Run::source(source).grant(&["ext:a"]), Asked::Suspending)
            }
            11 => (Run::source("for (;;);").timeout_ms(1 + self.rng.below(20) as u64), Asked::Endless),
            12 => (Run::source("throw new Error('storm')"), Asked::Throwing),
            13..=16 => return self.resume(),
            17 => return self.cancel(),
            18 => {
                let id = self.client.send(&ClientMessage::Ping);
                self.open.insert(id, Asked::Ping);
                return;
            }
            _ => return self.leave_sometimes(),
        };
        let id = self.client.start(message_run);
        self.open.insert(id, asked);
    }

    fn resume(&mut self) {
        if self.suspensions.is_empty() {
            return;
        }
        let at = self.rng.below(self.suspensions.len());
        // sometimes kept, so that it is used twice
        let suspension =
            if self.rng.below(4) == 0 { self.suspensions[at].clone() } else { self.suspensions.swap_remove(at) };
        let resume = Resume::new(&suspension, Resolution::Value(Some(&[7])));
        let id = self.client.send(&ClientMessage::Resume(resume));
        self.open.insert(id, Asked::Resume);
    }

    fn cancel(&mut self) {
        let id = match (self.rng.below(2), self.suspensions.pop()) {
            (0, Some(suspension)) => self.client.send(&ClientMessage::Cancel(Cancel::Suspension(&suspension))),
            (_, kept) => {
                self.suspensions.extend(kept);
                let requests: Vec<u32> = self.open.keys().copied().collect();
                let target = if requests.is_empty() { 1 } else { *self.rng.pick(&requests) };
                self.client.send(&ClientMessage::Cancel(Cancel::Request(target)))
            }
        };
        self.open.insert(id, Asked::Cancel);
    }

    /// Goes without a word, whatever is outstanding, and comes back.
    fn leave_sometimes(&mut self) {
        if self.rng.below(4) == 0 {
            self.client = self.sidecar.connect();
            self.open.clear();
            self.suspensions.clear();
        }
    }

    fn receive(&mut self) {
        let Reply { id, answer } = self.client.next_reply().expect("the connection stays");
        let asked = self.open.remove(&id).unwrap_or_else(|| panic!("{id} is not open: {answer:?}"));
        self.answered += 1;
        match (asked, answer) {
            (Asked::Ping, Answer::Pong) | (Asked::Cancel, Answer::Done { .. }) => {}
            (asked, Answer::Result(segment)) => self.judge(asked, &segment),
            (asked, answer) => panic!("{asked:?} was answered by {answer:?}"),
        }
    }

    fn judge(&mut self, asked: Asked, segment: &Segment) {
        let code = segment.error.as_ref().map(|e| e.code);
        let fine = match (asked, segment.status) {
            (Asked::Ping | Asked::Cancel, _) => false,
            // anything that runs may have been cancelled
            (_, Status::Error) if code == Some(ErrorCode::Cancelled) => true,
            (Asked::Tiny(n), Status::Success) => {
                segment.value() == json!(n) && segment.mutations == json!([{"op": "set", "key": "n", "value": n}])
            }
            (Asked::Suspending | Asked::Resume, Status::Suspended) => {
                let new = segment.calls.iter().map(|c| c.id.clone()).filter(|id| !self.suspensions.contains(id));
                self.suspensions.extend(new.collect::<Vec<_>>());
                true
            }
            (Asked::Resume, Status::Success) => segment.value() == json!(2),
            (Asked::Resume, Status::Error) => code == Some(ErrorCode::SuspensionError),
            (Asked::Endless, Status::Error) => code == Some(ErrorCode::Timeout),
            (Asked::Throwing, Status::Error) => code == Some(ErrorCode::ExecutionError),
            _ => false,
        };
        assert!(fine, "{asked:?}: {segment:?}");
    }

    fn run(mut self) -> usize {
        for _ in 0..STEPS {
            self.step();
            while self.open.len() > MAX_OPEN || (!self.open.is_empty() && self.rng.below(3) == 0) {
                self.receive();
            }
        }
        while !self.open.is_empty() {
            self.receive();
        }
        self.answered
    }
}

fn weather(sidecar: &Sidecar, seed: u64) -> usize {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENTS)
            .map(|n| {
                let rng = Rng::new(seed + n);
                scope.spawn(move || {
                    let client = sidecar.connect();
                    Storm { sidecar, rng, client, open: HashMap::new(), suspensions: Vec::new(), answered: 0 }.run()
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    })
}

#[test]
fn every_request_of_a_storm_is_answered_once_and_nothing_is_left() {
    let _w = Watchdog::seconds(120);
    let seed = nexus_tests::number("NEXUS_STORM_SEED", SEED);
    for instances in [1, 4] {
        let mut sidecar = Options::new().flag("max-instances", instances).flag("max-queue-ms", 60_000).listen();
        let mut watcher = sidecar.connect();
        let mut quiet = || {
            eventually("all is quiet", SOON, || {
                let stats = watcher.stats();
                (stats.active_instances, stats.suspended_instances, stats.queued) == (0, 0, 0)
            });
        };
        weather(&sidecar, seed);
        quiet();
        let before = settled_counts(sidecar.pid());
        assert!(weather(&sidecar, seed + 1000) > STEPS);
        quiet();
        assert_eq!(settled_counts(sidecar.pid()), before, "descriptors, threads");
        assert!(sidecar.is_running());
        watcher.still_works();
        assert_eq!(sidecar.stdout(), "");
    }
}
