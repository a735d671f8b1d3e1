//! Several clients do everything at once, at random and from one seed: whatever the order, every request is answered exactly
//! once, with an outcome that it may have, and nothing is left behind. Each client knows what it has cancelled and which
//! suspensions it has used, so an end that was meant for another is a failure. `NEXUS_STORM_SEED` chooses another storm.

use std::collections::{HashMap, HashSet};

use nexus_protocol::message::{Cancel, Resolution, Resume, Status};
use nexus_protocol::{ClientMessage, ErrorCode};
use nexus_tests::leaks::settled_counts;
use nexus_tests::{Answer, Client, Options, Reply, Rng, Run, SOON, Segment, Sidecar, Watchdog, eventually};
use serde_json::json;

const SEED: u64 = 5_705;
const CLIENTS: u64 = 4;
const STEPS: usize = 500;
const MAX_OPEN: usize = 24;

/// Number of an execution within its connection: what a cancel is aimed at.
type Execution = usize;

#[derive(Clone, Debug, PartialEq)]
enum Asked {
    Tiny(u64),
    Suspending,
    Endless,
    Throwing,
    /// With the suspension that it uses.
    Resume(String),
    Cancel,
    Ping,
}

/// What became of a suspension.
#[derive(Default)]
struct Used {
    of: Execution,
    /// Resumes that were sent with it.
    sent: u32,
    /// Those of them that found its execution.
    won: u32,
    /// Those that were told that it is unknown.
    lost: u32,
}

/// One connection, and what it knows about itself. Another connection's cancels and ends are nothing to it.
#[derive(Default)]
struct Books {
    open: HashMap<u32, (Asked, Execution)>,
    /// Suspensions that can be used.
    suspensions: Vec<String>,
    used: HashMap<String, Used>,
    executions: usize,
    /// Executions that this connection has asked to be cancelled. Nothing else may be told that it was.
    cancelled: HashSet<Execution>,
}

struct Storm<'a> {
    sidecar: &'a Sidecar,
    rng: Rng,
    client: Client,
    books: Books,
    answered: usize,
}

impl Storm<'_> {
    fn step(&mut self) {
        let (run, asked) = match self.rng.below(20) {
            0..=6 => {
                let n = self.rng.next_u64() >> 20;
                let source = "$state.n = $args; return $args";
                // some that no cache knows
                let source = if self.rng.below(4) == 0 { format!("{source} //{n}") } else { source.to_owned() };
                (Run::source(source).args(&json!(n)).grant(&["state:write:n"]), Asked::Tiny(n))
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
                self.books.open.insert(id, (Asked::Ping, 0));
                return;
            }
            _ => return self.leave_sometimes(),
        };
        self.books.executions += 1;
        let id = self.client.start(run);
        self.books.open.insert(id, (asked, self.books.executions));
    }

    fn resume(&mut self) {
        let suspensions = &mut self.books.suspensions;
        if suspensions.is_empty() {
            return;
        }
        let at = self.rng.below(suspensions.len());
        // sometimes kept, so that it is used twice
        let suspension = if self.rng.below(4) == 0 { suspensions[at].clone() } else { suspensions.swap_remove(at) };
        let used = self.books.used.get_mut(&suspension).expect("it was told");
        used.sent += 1;
        let resume = Resume::new(&suspension, Resolution::Value(Some(&[7])));
        let id = self.client.send(&ClientMessage::Resume(resume));
        self.books.open.insert(id, (Asked::Resume(suspension), used.of));
    }

    fn cancel(&mut self) {
        let id = match (self.rng.below(2), self.books.suspensions.pop()) {
            (0, Some(suspension)) => {
                self.books.cancelled.insert(self.books.used[&suspension].of);
                self.client.send(&ClientMessage::Cancel(Cancel::Suspension(&suspension)))
            }
            (_, kept) => {
                self.books.suspensions.extend(kept);
                let mut requests: Vec<u32> = self.books.open.keys().copied().collect();
                requests.sort_unstable();
                let target = if requests.is_empty() { 1 } else { *self.rng.pick(&requests) };
                if let Some((_, execution)) = self.books.open.get(&target) {
                    self.books.cancelled.insert(*execution);
                }
                self.client.send(&ClientMessage::Cancel(Cancel::Request(target)))
            }
        };
        self.books.open.insert(id, (Asked::Cancel, 0));
    }

    /// Goes without a word, whatever is outstanding, and comes back.
    fn leave_sometimes(&mut self) {
        if self.rng.below(4) == 0 {
            self.client = self.sidecar.connect();
            self.books = Books::default();
        }
    }

    fn receive(&mut self) {
        let Reply { id, answer } = self.client.next_reply().expect("the connection stays");
        let open = self.books.open.remove(&id);
        let (asked, execution) = open.unwrap_or_else(|| panic!("{id} is not open: {answer:?}"));
        self.answered += 1;
        match (asked, answer) {
            (Asked::Ping, Answer::Pong) | (Asked::Cancel, Answer::Done { .. }) => {}
            (asked, Answer::Result(segment)) => self.judge(&asked, execution, &segment),
            (asked, answer) => panic!("{asked:?} was answered by {answer:?}"),
        }
    }

    fn judge(&mut self, asked: &Asked, execution: Execution, segment: &Segment) {
        let code = segment.error.as_ref().map(|e| e.code);
        let cancelled = self.books.cancelled.contains(&execution);
        let fine = match (asked, segment.status) {
            (Asked::Ping | Asked::Cancel, _) => false,
            (_, Status::Error) if code == Some(ErrorCode::Cancelled) => cancelled,
            (Asked::Tiny(n), Status::Success) => {
                segment.value() == json!(n) && segment.mutations == json!([{"op": "set", "key": "n", "value": n}])
            }
            (Asked::Suspending | Asked::Resume(_), Status::Suspended) => true,
            (Asked::Resume(_), Status::Success) => segment.value() == json!(2),
            // its suspension was used before, or its execution is no more
            (Asked::Resume(suspension), Status::Error) => {
                let used = self.books.used.get_mut(suspension).expect("it was told");
                used.lost += 1;
                code == Some(ErrorCode::SuspensionError) && (cancelled || used.lost < used.sent)
            }
            (Asked::Endless, Status::Error) => code == Some(ErrorCode::Timeout),
            (Asked::Throwing, Status::Error) => code == Some(ErrorCode::ExecutionError),
            _ => false,
        };
        assert!(fine, "{asked:?}, cancelled: {cancelled}: {segment:?}");
        if let (Asked::Resume(suspension), true) = (asked, segment.status != Status::Error) {
            let used = self.books.used.get_mut(suspension).expect("it was told");
            used.won += 1;
            assert_eq!(used.won, 1, "a suspension was used twice: {segment:?}");
        }
        for call in &segment.calls {
            if !self.books.used.contains_key(&call.id) {
                self.books.used.insert(call.id.clone(), Used { of: execution, ..Used::default() });
                self.books.suspensions.push(call.id.clone());
            }
        }
    }

    fn run(mut self) -> usize {
        for _ in 0..STEPS {
            self.step();
            while self.books.open.len() > MAX_OPEN || (!self.books.open.is_empty() && self.rng.below(3) == 0) {
                self.receive();
            }
        }
        while !self.books.open.is_empty() {
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
                    Storm { sidecar, rng, client, books: Books::default(), answered: 0 }.run()
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    })
}

// shows P-one-answer
#[test]
fn every_request_of_a_storm_is_answered_once_and_nothing_is_left() {
    let _w = Watchdog::seconds(120);
    let seed = nexus_tests::number("NEXUS_STORM_SEED", SEED);
    for instances in [1, 4] {
        let mut sidecar = Options::new().patient().flag("max-instances", instances).listen();
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
