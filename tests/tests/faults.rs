//! Every place where the sidecar meets the kernel fails, under every kind of request: the client gets an answer or the end of
//! its connection, nothing is left behind, and the next request succeeds. The faults are planned (`sidecar/src/faults.rs`),
//! everything else is real.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nexus_protocol::message::Region;
use nexus_protocol::message::{
    Cancel, Check, CreateState, DisposeState, Kill, OpenArena, PatchState, Precompile, Regions, Resolution, Resume,
    SnapshotState, Status,
};
use nexus_protocol::{ClientMessage, ErrorCode, RequestId};
use nexus_tests::leaks::{names_in_shm, settled_counts};
use nexus_tests::process::{handlers_on_disk, write_plan};
use nexus_tests::run::{BUILTIN, pack};
use nexus_tests::temp::TempDir;
use nexus_tests::{Answer, Client, Options, Run, SOON, Sidecar, Watchdog, eventually};
use serde_json::json;

/// The exit code of a process that gives up.
const STUCK: i32 = 71;
/// Of one that cannot bring up its engine, and of one that lacks something else.
const ENGINE_INIT: i32 = 5;
const INTERNAL: i32 = 70;
/// Ids that no helper of the client gives out.
const FIRST_ID: u32 = 1_000_000;
const MAX_FRAME_BYTES: usize = 1 << 20;
/// Of a payload that is worth shared memory.
const LARGE: usize = 500_000;
/// An empty map.
const EMPTY: &[u8] = &[0x80];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Execute,
    Handle,
    Suspend,
    Resident,
    Resume,
    Precompile,
    Check,
    CancelRequest,
    CancelSuspension,
    Stats,
    Metrics,
    Ping,
    Executions,
    Kill,
    CreateState,
    PatchState,
    SnapshotState,
    DisposeState,
    OpenArena,
    /// The others have payloads in shared memory, in either direction.
    ExecuteLent,
    ResultLent,
    ResumeLent,
    CreateLent,
    PatchLent,
    SnapshotLent,
}

const LENT: [Asked; 6] = [
    Asked::ExecuteLent,
    Asked::ResultLent,
    Asked::ResumeLent,
    Asked::CreateLent,
    Asked::PatchLent,
    Asked::SnapshotLent,
];

const ALL: [Asked; 19] = [
    Asked::Execute,
    Asked::Handle,
    Asked::Suspend,
    Asked::Resident,
    Asked::Resume,
    Asked::Precompile,
    Asked::Check,
    Asked::CancelRequest,
    Asked::CancelSuspension,
    Asked::Stats,
    Asked::Metrics,
    Asked::Ping,
    Asked::Executions,
    Asked::Kill,
    Asked::CreateState,
    Asked::PatchState,
    Asked::SnapshotState,
    Asked::DisposeState,
    Asked::OpenArena,
];

/// What a request needs to be there before it.
#[derive(Default)]
struct Ground {
    handle: Vec<u8>,
    suspension: String,
    state: String,
    arena: Option<Arena>,
}

/// Shared memory of a connection.
struct Arena {
    file: File,
    generation: u64,
}

impl Arena {
    const BYTES: u64 = 8 << 20;

    fn make(client: &mut Client) -> Self {
        let made = client.request(&ClientMessage::OpenArena(OpenArena::Make { bytes: Self::BYTES }));
        let Answer::Arena { generation, name: Some(name), .. } = made else { panic!("{made:?}") };
        let file = OpenOptions::new().read(true).write(true).open(Path::new("/dev/shm").join(name)).unwrap();
        let settled = client.request(&ClientMessage::OpenArena(OpenArena::Settle { generation, opened: true }));
        assert!(matches!(settled, Answer::Arena { name: None, .. }), "{settled:?}");
        Self { file, generation }
    }

    fn put(&self, offset: u64, value: &serde_json::Value) -> Option<Region> {
        let payload = pack(value);
        self.file.write_all_at(&payload, offset).unwrap();
        Some(Region { generation: self.generation, offset, len: payload.len() as u64, crc32: None })
    }

    /// Room for the answer.
    fn rest(&self) -> Option<Region> {
        Some(Region { generation: self.generation, offset: 4 << 20, len: 4 << 20, crc32: None })
    }
}

impl Asked {
    fn prepare(self, client: &mut Client) -> Ground {
        let mut ground = Ground::default();
        if LENT.contains(&self) {
            ground.arena = Some(Arena::make(client));
        }
        match self {
            Self::Handle => ground.handle = client.precompile("return 'handle'").unwrap(),
            Self::Resume | Self::CancelSuspension | Self::ResumeLent => {
                let run = Run::source("return await $ext.a.b()").grant(&["ext:*"]);
                ground.suspension = client.run(run).call().id.clone();
            }
            Self::Resident | Self::PatchState | Self::SnapshotState | Self::DisposeState | Self::PatchLent => {
                ground.state = client.create_state(&json!({"n": 1}));
            }
            Self::SnapshotLent => ground.state = client.create_state(&json!({"large": "x".repeat(LARGE)})),
            _ => {}
        }
        ground
    }

    /// The frame of it. `number`: makes sources that no cache knows.
    fn frame(self, ground: &Ground, number: u32) -> Vec<u8> {
        let source = format!("return {number}");
        let run = match self {
            Self::Execute => Run::source(&source),
            Self::Handle => Run::handle(&ground.handle),
            Self::Suspend => Run::source(format!("return [{number}, await $ext.a.b()]")).grant(&["ext:*"]),
            Self::Resident => {
                Run::source("$state.n += 1").grant(&["state:read:*", "state:write:*"]).resident(&ground.state)
            }
            Self::ExecuteLent => Run::source("return [$state.k, $args, $scope.s]").grant(&["state:read:*"]),
            Self::ResultLent => {
                let source = format!("$state.large = 'y'.repeat({LARGE}); return 'z'.repeat({LARGE})");
                Run::source(source).grant(&["state:write:*"])
            }
            _ => Run::default(),
        };
        let state = &*ground.state;
        let mut regions = Regions::NONE;
        if let Some(arena) = &ground.arena {
            match self {
                Self::ExecuteLent => {
                    regions.state = arena.put(0, &json!({"k": number}));
                    regions.args = arena.put(1 << 20, &json!([number]));
                    regions.scope = arena.put(2 << 20, &json!({"s": number}));
                }
                Self::CreateLent => regions.state = arena.put(0, &json!({"k": number})),
                Self::PatchLent => regions.set = arena.put(0, &json!({"k": number})),
                Self::ResumeLent => regions.value = arena.put(0, &json!(number)),
                _ => regions.reply = arena.rest(),
            }
        }
        let run = run.regions(regions);
        let message = match self {
            Self::Execute | Self::Handle | Self::Suspend | Self::Resident => run.message(),
            Self::ExecuteLent | Self::ResultLent => run.message(),
            Self::ResumeLent => {
                let mut resume = Resume::new(&ground.suspension, Resolution::Value(None));
                resume.regions = regions;
                ClientMessage::Resume(resume)
            }
            Self::CreateLent => ClientMessage::CreateState(CreateState { state: None, regions }),
            Self::PatchLent => ClientMessage::PatchState(PatchState {
                id: state,
                set: None,
                delete: vec!["n"],
                expect_version: None,
                regions,
            }),
            Self::SnapshotLent => ClientMessage::SnapshotState(SnapshotState { id: state, keys: None, regions }),
            Self::Resume => ClientMessage::Resume(Resume::new(&ground.suspension, Resolution::Value(Some(&[1])))),
            Self::Precompile => {
                ClientMessage::Precompile(Precompile { source: &source, handler_name: None, suspend_mode: None })
            }
            Self::Check => ClientMessage::Check(Check { source: &source }),
            Self::CancelRequest => ClientMessage::Cancel(Cancel::Request(77)),
            Self::CancelSuspension => ClientMessage::Cancel(Cancel::Suspension(&ground.suspension)),
            Self::Stats => ClientMessage::Stats,
            Self::Metrics => ClientMessage::Metrics,
            Self::Ping => ClientMessage::Ping,
            Self::Executions => ClientMessage::Executions,
            Self::Kill => ClientMessage::Kill(Kill { execution: u64::MAX }),
            Self::CreateState => ClientMessage::CreateState(CreateState { state: Some(EMPTY), regions: Regions::NONE }),
            Self::PatchState => ClientMessage::PatchState(PatchState {
                id: state,
                set: Some(EMPTY),
                delete: vec!["n"],
                expect_version: None,
                regions: Regions::NONE,
            }),
            Self::SnapshotState => {
                ClientMessage::SnapshotState(SnapshotState { id: state, keys: None, regions: Regions::NONE })
            }
            Self::DisposeState => ClientMessage::DisposeState(DisposeState { id: state }),
            Self::OpenArena => ClientMessage::OpenArena(OpenArena::Make { bytes: 1 << 20 }),
        };
        let mut frame = Vec::new();
        message.encode(RequestId(FIRST_ID + number), MAX_FRAME_BYTES, &mut frame).unwrap();
        frame
    }
}

/// Whether a fault shows in an answer, and how.
fn failure(answer: &Answer) -> Option<ErrorCode> {
    match answer {
        Answer::Error(error) => Some(error.code),
        Answer::Result(segment) if segment.status == Status::Error => Some(segment.code()),
        _ => None,
    }
}

/// What was to be answered is there once, in the message or in shared memory.
fn is_whole(asked: Asked, answer: &Answer) -> bool {
    match answer {
        Answer::Result(segment) if asked == Asked::ResultLent => {
            let (value, mutations) = (segment.regions.value, segment.regions.state_mutations);
            let in_message = segment.mutations.as_array().is_some_and(|mutations| mutations.len() == 1);
            (segment.value.is_some() != value.is_some()) && (in_message != mutations.is_some())
        }
        Answer::StateSnapshot { state, regions, .. } if asked == Asked::SnapshotLent => {
            (state.len() > LARGE) != regions.state.is_some()
        }
        _ => true,
    }
}

/// A sidecar whose plan changes while it runs.
struct Stage {
    plan: PathBuf,
    changes: u32,
    requests: u32,
    /// By the number of a request: a handle that this sidecar has never seen.
    handles: Vec<Vec<u8>>,
    sidecar: Sidecar,
    _dir: TempDir,
    _watchdog: Watchdog,
}

impl Stage {
    fn new(options: &Options) -> Self {
        let watchdog = Watchdog::seconds(150);
        let dir = TempDir::new();
        let plan = dir.join("plan");
        write_plan(&plan, "");
        let sidecar = options.clone().faults(&format!("file={}", plan.display())).listen();
        Self { plan, changes: 0, requests: 0, handles: Vec::new(), sidecar, _dir: dir, _watchdog: watchdog }
    }

    fn plan(&mut self, plan: &str) {
        self.changes += 1;
        write_plan(&self.plan, &format!("#{},{plan}", self.changes));
    }

    /// How often each fault has happened.
    fn happened(&self) -> BTreeMap<String, usize> {
        let mut times = BTreeMap::new();
        for line in self.sidecar.stderr().lines().filter_map(|line| line.split_once("NEXUS_FAULTS: ")) {
            *times.entry(line.1.to_owned()).or_default() += 1;
        }
        times
    }

    fn happened_in_all(&self) -> usize {
        self.happened().values().sum()
    }

    /// One request under a plan, on a connection of its own: the answer, or None for the end of the connection.
    fn ask(&mut self, asked: Asked, plan: &str) -> Option<Answer> {
        self.requests += 1;
        let number = self.requests;
        let connecting = plan.starts_with("accept");
        if plan.starts_with("map") {
            // instances that cannot be reset are gone: the next execution makes a new one
            let mut client = self.sidecar.connect();
            while client.stats().available_instances > 0 {
                let before = self.happened_in_all();
                self.plan("discard:error=12@1");
                client.still_works();
                eventually("an instance goes", SOON, || self.happened_in_all() > before);
            }
        }
        let mut client = if connecting {
            self.plan(plan);
            let mut client = Client::over(UnixStream::connect(self.sidecar.path()).unwrap());
            // one that is refused sees that when it reads
            client.write_raw(&hello());
            if let Answer::Error(refused) = client.next_reply()?.answer {
                assert_eq!(refused.code, ErrorCode::Overloaded, "{refused:?}");
                assert!(client.is_closed());
                return None;
            }
            client
        } else {
            self.sidecar.connect()
        };
        let mut ground = asked.prepare(&mut client);
        if let Some(handle) = self.handles.get(number as usize) {
            ground.handle.clone_from(handle);
        }
        let before = self.happened_in_all();
        if !connecting {
            self.plan(plan);
        }
        client.write_raw(&asked.frame(&ground, number));
        let reply = client.next_reply();
        if plan.starts_with("cache-") && matches!(asked, Asked::Execute | Asked::Suspend | Asked::Precompile) {
            // what is written is written after the answer
            eventually("it happens", SOON, || self.happened_in_all() > before);
        }
        self.plan("");
        let reply = reply?;
        assert_eq!(reply.id, FIRST_ID + number, "{asked:?} under {plan}: {reply:?}");
        client.ping();
        assert!(client.early_replies().is_empty(), "a second answer to {asked:?} under {plan}");
        Some(reply.answer)
    }

    /// Nothing is under way, and nothing is held for anybody.
    fn is_quiet(&self) {
        let mut client = self.sidecar.connect();
        eventually("all is quiet", SOON, || {
            let s = client.stats();
            let held = (s.resident_states, s.resident_state_bytes, s.arena_bytes);
            (s.active_instances, s.suspended_instances, s.queued, held) == (0, 0, 0, (0, 0, 0))
        });
    }

    /// Every kind of request under every plan. `loses`: whether the fault may cost the connection.
    fn matrix(&mut self, plans: &[&str], loses: impl Fn(&str) -> bool) {
        self.matrix_of(&ALL, plans, loses, &[]);
    }

    /// These kinds of requests, which may also fail in these ways.
    fn matrix_of(&mut self, kinds: &[Asked], plans: &[&str], loses: impl Fn(&str) -> bool, codes: &[ErrorCode]) {
        for asked in kinds.iter().copied() {
            self.ask(asked, "");
        }
        self.is_quiet();
        let before = settled_counts(self.sidecar.pid());
        let mut combinations = 0;
        for plan in plans {
            for asked in kinds.iter().copied() {
                combinations += 1;
                match self.ask(asked, plan) {
                    None => assert!(loses(plan), "{asked:?} under {plan} lost the connection"),
                    Some(answer) => {
                        let code = failure(&answer);
                        let typed = [None, Some(ErrorCode::InternalError), Some(ErrorCode::ResourceLimit)];
                        let others = codes.iter().chain([&ErrorCode::WasmError]);
                        assert!(
                            typed.contains(&code) || others.into_iter().any(|other| Some(*other) == code),
                            "{asked:?} under {plan}: {answer:?}"
                        );
                        assert!(code.is_some() || is_whole(asked, &answer), "{asked:?} under {plan}: {answer:?}");
                    }
                }
                let after = self.ask(asked, "").expect("a connection without faults");
                assert_eq!(failure(&after), None, "{asked:?} after {plan}: {after:?}");
                assert!(is_whole(asked, &after), "{asked:?} after {plan}: {after:?}");
            }
            self.is_quiet();
            assert_eq!(settled_counts(self.sidecar.pid()), before, "descriptors, threads after {plan}");
            assert_eq!(names_in_shm(self.sidecar.pid()), 0, "{plan}");
            assert!(self.sidecar.is_running());
        }
        let happened = self.happened();
        println!("{combinations} combinations; {happened:#?}");
        for plan in plans {
            let point = plan.split(':').next().unwrap();
            assert!(happened.keys().any(|line| line.split(' ').next() == Some(point)), "{point} never happened");
        }
    }
}

fn hello() -> Vec<u8> {
    use nexus_protocol::message::ClientHello;
    use nexus_protocol::{MAGIC, ProtocolVersion};
    let (min, max) = (ProtocolVersion::V2, ProtocolVersion::V2);
    let mut frame = Vec::new();
    let hello = ClientMessage::Hello(ClientHello { magic: MAGIC, min, max, client: "nexus-tests" });
    hello.encode(RequestId(0), MAX_FRAME_BYTES, &mut frame).unwrap();
    frame
}

#[test]
fn sockets_fail_under_every_kind_of_request() {
    let harmless =
        ["read:error=4@1", "read:error=11@1", "read:short", "write:error=4@1", "write:error=11@1", "write:short"];
    let fatal = ["read:error=5@1", "read:error=104@1", "write:error=32@1", "write:error=104@1"];
    let waiting = ["wait:error=4@1", "accept:error=4@1", "accept:error=11@1"];
    let refused = ["accept:error=12@1", "accept:error=23@1", "accept:error=24@1"];
    let plans = [&harmless[..], &fatal, &waiting, &refused].concat();
    let mut stage = Stage::new(&Options::new().flag("max-instances", 1));
    stage.matrix(&plans, |plan| fatal.contains(&plan) || refused.contains(&plan));
}

#[test]
fn memory_and_random_bytes_and_segments_fail_under_every_kind_of_request() {
    let plans =
        ["map:error=12@1", "discard:error=12@1", "random:error=5@1", "segment:error=24@1", "segment:error=28@1"];
    Stage::new(&Options::new().flag("max-instances", 1)).matrix(&plans, |_| false);
}

#[test]
fn the_cache_fails_under_every_kind_of_request() {
    let plans = [
        "cache-open:error=5@1",
        "cache-open:error=24@1",
        "cache-create:error=28@1",
        "cache-create:error=30@1",
        "cache-write:error=28@1",
        "cache-write:error=5@1",
        "cache-rename:error=28@1",
        "cache-rename:error=30@1",
    ];
    let mut stage = Stage::new(&Options::new().flag("max-instances", 1));
    stage.matrix(&plans, |_| false);
    let failed = stage.happened();
    assert!(failed.len() >= plans.len(), "{failed:?}");
}

#[test]
fn the_cache_cannot_be_read_under_every_kind_of_request() {
    let plans = ["cache-read:error=5@1", "cache-read:error=5@2", "cache-read:error=12", "cache-read:error=4@1"];
    let cache = TempDir::new();
    let options = Options::new().flag("max-instances", 1).flag("cache-dir", cache.path().display());
    // everything that will be asked for is on disk, and in nobody's memory
    let mut handles = Vec::new();
    let (mut filling, mut client) = options.child();
    for number in 0..=(2 * plans.len() as u32 + 1) * ALL.len() as u32 {
        handles.push(client.precompile(&format!("return {number}")).unwrap());
        client.precompile(&format!("return [{number}, await $ext.a.b()]")).unwrap();
        eventually("both are written", SOON, || handlers_on_disk(cache.path()) == 2 * handles.len());
    }
    filling.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(filling.exit_code(SOON), 0);
    let mut stage = Stage::new(&options);
    stage.handles = handles;
    stage.matrix_of(&ALL, &plans, |_| false, &[ErrorCode::InvalidHandler]);
    let happened = stage.happened_in_all();
    assert!(happened >= plans.len() * 4, "sources that run, wait and are compiled, and handles: {happened}");
}

#[test]
fn shared_memory_cannot_be_read_or_written_under_every_kind_of_request() {
    let plans = [
        "segment-read:error=5@1",
        "segment-read:error=5@2",
        "segment-read:error=12@3",
        "segment-read:error=4@1",
        "segment-write:error=28@1",
        "segment-write:error=28@2",
        "segment-write:error=5",
    ];
    let mut stage = Stage::new(&Options::new().flag("max-instances", 1));
    stage.matrix_of(&LENT, &plans, |_| false, &[ErrorCode::InvalidArgument]);
    // each read fails that there is, and each write
    let happened = stage.happened_in_all();
    assert!(happened >= 4 + 1 + 1 + 4 + 2 + 1 + 3, "{happened}");
}

#[test]
fn what_cannot_be_parked_is_resumed_all_the_same_and_later_ones_are_parked() {
    // no memory, too many files, and the read itself
    for error in [12, 24, 5] {
        let mut stage = Stage::new(&Options::new().patient().flag("max-instances", 1));
        let mut client = stage.sidecar.connect();
        stage.plan(&format!("pages:error={error}"));
        let hold = |client: &mut Client| -> Vec<String> {
            let run = Run::source("return await $ext.a.b()").grant(&["ext:*"]);
            (0..5).map(|_| client.run_suspended(run.clone()).call().id.clone()).collect()
        };
        let ids = hold(&mut client);
        eventually("it is tried", SOON, || stage.happened_in_all() > 0);
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(client.resume(id, &json!(n)).value(), n);
        }
        client.still_works();
        stage.is_quiet();
        // what failed has passed
        stage.plan("");
        let ids = hold(&mut client);
        eventually("all of them are parked", SOON, || {
            client.metrics().lines().any(|line| line == "nexus_suspensions{state=\"parked\"} 5")
        });
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(client.resume(id, &json!(n)).value(), n);
        }
        stage.is_quiet();
    }
}

#[test]
fn a_killed_run_whose_memory_stays_away_is_answered() {
    let mut stage = Stage::new(&Options::new().flag("max-instances", 1));
    let mut client = stage.sidecar.connect();
    client.still_works();
    let before = settled_counts(stage.sidecar.pid());
    stage.plan("restore:error=12");
    // on a busy machine the time of some is over before they get as far as to be killed
    eventually("five fail", 2 * SOON, || {
        let run = Run::source(BUILTIN).timeout_ms(100);
        assert_eq!(client.run(run).code(), ErrorCode::Timeout);
        client.still_works();
        stage.happened_in_all() >= 5
    });
    assert_eq!(settled_counts(stage.sidecar.pid()), before);
}

#[test]
fn a_process_that_gets_no_thread_for_a_stuck_one_ends() {
    let mut stage = Stage::new(&Options::new().flag("max-instances", 1));
    let mut client = stage.sidecar.connect();
    client.still_works();
    // the threads of the start are there
    settled_counts(stage.sidecar.pid());
    stage.plan("host-call:hang@1,thread:error=11");
    client.start(Run::source("$log('x')").timeout_ms(2_000));
    assert_eq!(stage.sidecar.exit_code(SOON), STUCK);
    assert!(client.is_closed());
    assert!(stage.sidecar.stderr().contains("could not be replaced"), "{}", stage.sidecar.stderr());
}

#[test]
fn a_sidecar_that_lacks_something_at_its_start_says_so_or_goes_without() {
    let _w = Watchdog::seconds(120);
    let fatal = [
        ("memory-file:error=12", ENGINE_INIT),
        ("map:error=12", ENGINE_INIT),
        ("thread:error=11@1", ENGINE_INIT),
        ("thread:error=11@3", INTERNAL),
    ];
    for (plan, code) in fatal {
        let dir = TempDir::new();
        let mut sidecar = Options::new().flag("max-instances", 2).faults(plan).listen_on(&dir.join("s.sock"));
        assert_eq!(sidecar.exit_code(SOON), code, "{plan}: {}", sidecar.stderr());
        assert!(sidecar.stderr().contains("os error"), "{plan}: {}", sidecar.stderr());
    }
    for point in ["cache-create", "cache-write", "cache-sync", "cache-rename", "cache-open"] {
        let sidecar = Options::new().faults(&format!("{point}:error=28")).listen();
        sidecar.connect().still_works();
        eventually(&format!("{point} fails"), SOON, || sidecar.stderr().contains("NEXUS_FAULTS"));
    }
}
