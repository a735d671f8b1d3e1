//! Shared memory: payloads travel through it, nothing of it outlives its two ends, and whatever a client does to its segment is
//! an error of that client alone.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nexus_protocol::message::{CreateState, OpenArena, Region, Regions, Resolution, Resume, SnapshotState, Status};
use nexus_protocol::{ClientMessage, ContextValue, ErrorCode, WireError};
use nexus_tests::leaks::settled_counts;
use nexus_tests::run::{listening, pack, unpack};
use nexus_tests::{Answer, Client, Options, Run, SOON, Watchdog, eventually};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
const SHM: &str = "/dev/shm";

/// Names of a sidecar in /dev/shm.
fn names(pid: u32) -> BTreeSet<PathBuf> {
    let prefix = format!("nexus-sidecar.{pid}.");
    let entries = fs::read_dir(SHM).unwrap().flatten();
    entries.map(|e| e.path()).filter(|p| p.file_name().unwrap().to_string_lossy().starts_with(&prefix)).collect()
}

/// A segment as a client has it.
struct Segment {
    file: File,
    generation: u64,
    bytes: u64,
}

impl Segment {
    fn make(client: &mut Client, bytes: u64) -> Self {
        let (segment, path) = Self::make_named(client, bytes);
        segment.settle(client);
        assert!(!path.exists(), "the name goes once both have it");
        segment
    }

    fn make_named(client: &mut Client, bytes: u64) -> (Self, PathBuf) {
        match client.request(&ClientMessage::OpenArena(OpenArena::Make { bytes })) {
            Answer::Arena { generation, bytes, name } => {
                let path = Path::new(SHM).join(name.expect("a new segment has a name"));
                let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
                (Self { file, generation, bytes }, path)
            }
            other => panic!("{other:?}"),
        }
    }

    fn settle(&self, client: &mut Client) {
        let settle = OpenArena::Settle { generation: self.generation, opened: true };
        let answer = client.request(&ClientMessage::OpenArena(settle));
        let Answer::Arena { generation, bytes, name: None } = answer else { panic!("{answer:?}") };
        assert_eq!((generation, bytes), (self.generation, self.bytes));
    }

    fn region(&self, offset: u64, len: u64) -> Region {
        Region { generation: self.generation, offset, len, crc32: None }
    }

    fn put(&self, offset: u64, payload: &[u8]) -> Region {
        self.file.write_all_at(payload, offset).unwrap();
        self.region(offset, payload.len() as u64)
    }

    fn get(&self, region: &Region) -> Vec<u8> {
        let mut bytes = vec![0; region.len as usize];
        self.file.read_exact_at(&mut bytes, region.offset).unwrap();
        bytes
    }
}

fn reading(regions: Regions) -> Run {
    Run::source("return [$state.k.length, $args, $scope]").grant(&["state:read:*"]).regions(regions)
}

fn state_of(region: Region) -> Regions {
    Regions { state: Some(region), ..Regions::NONE }
}

fn reason(error: &WireError) -> &str {
    assert_eq!(error.code, ErrorCode::InvalidArgument, "{error:?}");
    match &error.context["reason"] {
        ContextValue::Text(reason) => reason,
        other => panic!("{other:?}"),
    }
}

fn create(client: &mut Client, region: Region) -> Result<String, WireError> {
    match client.request(&ClientMessage::CreateState(CreateState { state: None, regions: state_of(region) })) {
        Answer::StateCreated { id, .. } => Ok(id),
        Answer::Error(error) => Err(error),
        other => panic!("{other:?}"),
    }
}

// ---- what it is for ----

// shows P-arena-reply
#[test]
fn payloads_travel_through_the_segment_both_ways() {
    let (_w, _s, mut client) = listening(&Options::new());
    let segment = Segment::make(&mut client, 8 * MIB);
    let state = segment.put(0, &pack(&json!({"k": "x".repeat(1 << 20)})));
    let args = segment.put(2 * MIB, &pack(&json!([1, 2])));
    let scope = segment.put(2 * MIB + 64, &pack(&json!({"s": true})));
    let regions = Regions { state: Some(state), args: Some(args), scope: Some(scope), ..Regions::NONE };
    assert_eq!(client.run(reading(regions)).value(), json!([1 << 20, [1, 2], {"s": true}]));

    let reply = Some(segment.region(4 * MIB, 4 * MIB));
    let source = "$state.big = 'y'.repeat(1 << 20); return 'z'.repeat(500000)";
    let run = Run::source(source).grant(&["state:write:*"]).regions(Regions { reply, ..Regions::NONE });
    let answer = client.run(run.clone());
    assert_eq!((answer.status, answer.value.clone()), (Status::Success, None));
    let value = segment.get(&answer.regions.value.unwrap());
    assert_eq!(unpack(&value).as_str().unwrap().len(), 500_000);
    let mutations = unpack(&segment.get(&answer.regions.state_mutations.unwrap()));
    assert_eq!(mutations[0]["value"].as_str().unwrap().len(), 1 << 20);
    // what does not fit the place that was lent, or is small, comes with the message
    let reply = Some(segment.region(0, 600_000));
    let answer = client.run(run.regions(Regions { reply, ..Regions::NONE }));
    assert!(answer.regions.value.is_some() && answer.regions.state_mutations.is_none());
    assert_eq!(answer.mutations[0]["value"].as_str().unwrap().len(), 1 << 20);
    let small = client.run(Run::source("return 1").regions(Regions { reply, ..Regions::NONE }));
    assert_eq!((small.value(), small.regions), (json!(1), Regions::NONE));
}

// shows P-arena-reply
#[test]
fn resumes_and_resident_states_use_it_too() {
    let (_w, _s, mut client) = listening(&Options::new());
    let segment = Segment::make(&mut client, 8 * MIB);
    let first = client.run(Run::source("return (await $ext.x.y()).length").grant(&["ext:*"]));
    let value = segment.put(0, &pack(&json!("v".repeat(1 << 20))));
    let mut resume = Resume::new(&first.call().id, Resolution::Value(None));
    resume.regions.value = Some(value);
    let id = client.send(&ClientMessage::Resume(resume));
    assert_eq!(client.segment(id).value(), json!(1 << 20));

    let id = create(&mut client, segment.put(0, &pack(&json!({"k": "x".repeat(1 << 20)})))).unwrap();
    let regions = Regions { reply: Some(segment.region(4 * MIB, 4 * MIB)), ..Regions::NONE };
    let snapshot = ClientMessage::SnapshotState(SnapshotState { id: &id, keys: None, regions });
    let Answer::StateSnapshot { version: 1, regions, .. } = client.request(&snapshot) else { panic!() };
    let state = unpack(&segment.get(&regions.state.unwrap()));
    assert_eq!(state["k"].as_str().unwrap().len(), 1 << 20);
}

// shows P-arena-private
#[test]
fn a_segment_is_private_to_its_user_and_bounded() {
    let options = Options::new().flag("max-arena-bytes", 4 * MIB).flag("max-total-arena-bytes", 6 * MIB);
    let (_w, sidecar, mut client) = listening(&options);
    let (segment, path) = Segment::make_named(&mut client, u64::MAX);
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.mode() & 0o777, found.len(), segment.bytes), (0o600, 4 * MIB, 4 * MIB));
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with(&format!("nexus-sidecar.{}.", sidecar.pid())) && name.len() > 32 + 14, "{name}");
    assert_eq!(found.blocks(), 0, "it takes memory as it is written");
    let mut other = sidecar.connect();
    let over = other.request(&ClientMessage::OpenArena(OpenArena::Make { bytes: 4 * MIB }));
    let Answer::Error(over) = over else { panic!("{over:?}") };
    assert_eq!(
        (over.code, &over.context["resource"]),
        (ErrorCode::ResourceLimit, &ContextValue::Text("maxTotalArenaBytes".into()))
    );
    assert_eq!(client.stats().arena_bytes, 4 * MIB);
    drop(client);
    eventually("it is gone", SOON, || !path.exists());
    eventually("there is room", SOON, || other.stats().arena_bytes == 0);
    Segment::make(&mut other, 4 * MIB);
    let (_s, mut none) = Options::new().flag("max-arena-bytes", 0).child();
    let off = none.request(&ClientMessage::OpenArena(OpenArena::Make { bytes: MIB }));
    assert!(matches!(off, Answer::Error(ref e) if e.code == ErrorCode::ResourceLimit), "{off:?}");
    none.still_works();
}

// ---- what a client may do to it ----

// shows P-arena-shrunk
#[test]
fn a_shrunk_grown_or_unlinked_segment_is_an_error_or_works_and_harms_nobody() {
    let (_w, sidecar, mut client) = listening(&Options::new());
    let mut other = sidecar.connect();
    let theirs = Segment::make(&mut other, 2 * MIB);
    let their_state = theirs.put(0, &pack(&json!({"k": "abc"})));
    let segment = Segment::make(&mut client, 2 * MIB);
    let state = segment.put(0, &pack(&json!({"k": "x".repeat(1 << 20)})));
    for len in [0, 1, 4096, MIB] {
        segment.file.set_len(len).unwrap();
        assert_eq!(reason(client.run(reading(state_of(state))).error()), "unreadable-region");
        let reply = Some(segment.region(0, 2 * MIB));
        let run = Run::source("return 'z'.repeat(500000)").regions(Regions { reply, ..Regions::NONE });
        let answer = client.run(run);
        assert_eq!(unpack(&segment.get(&answer.regions.value.unwrap())).as_str().unwrap().len(), 500_000);
        assert_eq!(other.run(reading(state_of(their_state))).value()[0], 3);
    }
    segment.file.set_len(64 * MIB).unwrap();
    let beyond = segment.put(2 * MIB, &pack(&json!({"k": 1})));
    assert_eq!(reason(client.run(reading(state_of(beyond))).error()), "bad-region");
    let (named, path) = Segment::make_named(&mut client, 2 * MIB);
    fs::remove_file(&path).unwrap();
    named.settle(&mut client);
    let state = named.put(0, &pack(&json!({"k": "abcd"})));
    assert_eq!(client.run(reading(state_of(state))).value()[0], 4);
    client.still_works();
    other.still_works();
}

// shows P-arena-errors
#[test]
fn places_outside_stale_foreign_or_doubled_are_refused() {
    let (_w, sidecar, mut client) = listening(&Options::new());
    let none = Region { generation: 1, offset: 0, len: 1, crc32: None };
    assert_eq!(reason(client.run(reading(state_of(none))).error()), "unknown-arena");
    let old = Segment::make(&mut client, MIB);
    let good = pack(&json!({"k": "abc"}));
    let stale = old.put(0, &good);
    let segment = Segment::make(&mut client, MIB);
    let mut other = sidecar.connect();
    let theirs = Segment::make(&mut other, MIB);
    let foreign = theirs.put(0, &good);
    for region in [stale, foreign, Region { generation: 0, ..stale }, Region { generation: u64::MAX, ..stale }] {
        assert_eq!(reason(client.run(reading(state_of(region))).error()), "unknown-arena");
        assert_eq!(reason(&create(&mut client, region).unwrap_err()), "unknown-arena");
    }
    for (offset, len) in [(0, MIB + 1), (MIB, 1), (u64::MAX, 1), (1, u64::MAX >> 40), (u64::MAX - 1, 2), (MIB + 1, 0)] {
        let region = segment.region(offset, len);
        assert_eq!(reason(client.run(reading(state_of(region))).error()), "bad-region", "{offset} {len}");
    }
    let huge = client.run(reading(state_of(segment.region(0, u64::MAX))));
    assert_eq!(huge.code(), ErrorCode::ResourceLimit);
    let region = segment.put(0, &good);
    let twice = reading(state_of(region)).state(&json!({}));
    assert_eq!(reason(client.run(twice).error()), "bad-region");
    // overlapping ones are read as what they are
    let all = Regions { state: Some(region), scope: Some(region), ..Regions::NONE };
    assert_eq!(client.run(reading(all)).value(), json!([3, null, {"k": "abc"}]));
    // a lent place that is none is as if none were lent
    for reply in [stale, foreign, segment.region(u64::MAX, 1), segment.region(0, u64::MAX)] {
        let run = Run::source("return 'z'.repeat(500000)").regions(Regions { reply: Some(reply), ..Regions::NONE });
        assert_eq!(client.run(run).value().as_str().unwrap().len(), 500_000);
    }
    assert_eq!(theirs.get(&foreign), good, "nobody else's segment was written");
    let garbage = segment.put(0, &[0xc1; 100]);
    assert_eq!(client.run(reading(state_of(garbage))).code(), ErrorCode::InvalidArgument);
    let checked = Region { crc32: Some(1), ..segment.put(0, &good) };
    assert_eq!(reason(client.run(reading(state_of(checked))).error()), "unreadable-region");
}

// shows P-arena-copied
#[test]
fn a_writer_that_does_not_stop_gets_one_version_or_an_error_each_time() {
    const READS: usize = 100_000;
    const IN_FLIGHT: usize = 64;
    let (_w, sidecar, mut client) = listening(&Options::new());
    let mut other = sidecar.connect();
    let segment = Segment::make(&mut client, MIB);
    // the two values of a state, which are equal in each version; and a length that lies
    let versions = ['a', 'b'].map(|c| {
        let text = c.to_string().repeat(3000);
        pack(&json!({"one": text, "two": text}))
    });
    let mut lies = versions[0].clone();
    lies[5] = 0xdb;
    let region = segment.put(0, &versions[0]);
    let done = AtomicBool::new(false);
    let (mut accepted, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for version in [&versions[0], &versions[1], &lies].into_iter().cycle() {
                segment.file.write_all_at(version, 0).unwrap();
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let mut waiting = std::collections::VecDeque::new();
        for i in 0..READS + IN_FLIGHT {
            if i < READS {
                let message = CreateState { state: None, regions: state_of(region) };
                waiting.push_back(client.send(&ClientMessage::CreateState(message)));
            }
            if i < IN_FLIGHT {
                continue;
            }
            match client.wait(waiting.pop_front().unwrap()) {
                Answer::StateCreated { id, .. } => {
                    accepted += 1;
                    if accepted % 500 == 0 {
                        // what was checked is what is used: the same at every look, whatever is written meanwhile
                        let (_, seen) = client.snapshot_state(&id, None).unwrap();
                        let run = Run::source("return [$state.one, $state.two]").resident(&id).grant(&["state:read:*"]);
                        assert_eq!(client.run(run).value(), json!([seen["one"], seen["two"]]));
                        assert_eq!(other.ping_value(), json!(42));
                    }
                    assert!(client.dispose_state(&id));
                }
                Answer::Error(error) => {
                    assert_eq!(error.code, ErrorCode::InvalidArgument, "{error:?}");
                    refused += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(accepted + refused, READS);
    assert!(accepted > 0 && refused > 0, "{accepted} accepted, {refused} refused");
}

trait PingValue {
    fn ping_value(&mut self) -> Value;
}

impl PingValue for Client {
    fn ping_value(&mut self) -> Value {
        self.run("return 42").value()
    }
}

// ---- what stays behind ----

#[test]
fn clients_that_are_killed_leave_nothing() {
    let (_w, sidecar, mut watcher) = listening(&Options::new());
    watcher.still_works();
    let mut before = (0, 0);
    for round in 0..63 {
        if round == 3 {
            // each kind was there once: what is kept for the next is kept
            before = settled_counts(sidecar.pid());
        }
        let mut client = sidecar.connect();
        match round % 3 {
            // before it has said that it has it open
            0 => drop(Segment::make_named(&mut client, 2 * MIB)),
            // in the middle of writing
            1 => {
                let segment = Segment::make(&mut client, 2 * MIB);
                segment.file.write_all_at(&[0x81], 0).unwrap();
                client.start(reading(state_of(segment.region(0, MIB))));
            }
            // while an execution is suspended
            _ => {
                let segment = Segment::make(&mut client, 2 * MIB);
                let state = segment.put(0, &pack(&json!({"k": "x".repeat(1 << 20)})));
                client.run(Run::source("await $ext.x.y()").grant(&["ext:*"]).regions(state_of(state)));
            }
        }
        // the end of a stream is all that the sidecar sees of a kill
        drop(client);
    }
    eventually("all is freed", SOON, || {
        let stats = watcher.stats();
        (stats.arena_bytes, stats.suspended_instances) == (0, 0) && names(sidecar.pid()).is_empty()
    });
    assert_eq!(settled_counts(sidecar.pid()), before, "descriptors and threads are as before");
    let maps = fs::read_to_string(format!("/proc/{}/maps", sidecar.pid())).unwrap();
    assert!(!maps.contains("nexus-sidecar."), "no segment stays mapped");
    let open = fs::read_dir(format!("/proc/{}/fd", sidecar.pid())).unwrap().flatten();
    let open = open.filter_map(|fd| fs::read_link(fd.path()).ok());
    assert_eq!(open.filter(|target| target.starts_with(SHM)).count(), 0);
    watcher.still_works();
}

#[test]
fn a_sidecar_that_is_killed_leaves_at_most_a_name_which_the_next_one_sweeps() {
    let _w = Watchdog::seconds(120);
    let mut pids = Vec::new();
    for _ in 0..10 {
        let (mut sidecar, mut client) = Options::new().child();
        Segment::make(&mut client, 2 * MIB);
        assert!(names(sidecar.pid()).is_empty(), "an opened segment has no name");
        let (_file, path) = Segment::make_named(&mut client, 2 * MIB);
        assert_eq!(names(sidecar.pid()), BTreeSet::from([path]));
        // from here on any sidecar that starts on this machine removes it
        sidecar.kill();
        pids.push(sidecar.pid());
    }
    let foreign = Path::new(SHM).join(format!("nexus-sidecar-tests.{}", std::process::id()));
    fs::write(&foreign, "").unwrap();
    let (_next, mut client) = Options::new().child();
    client.still_works();
    assert!(pids.iter().all(|pid| names(*pid).is_empty()));
    assert!(foreign.exists(), "other people's files stay");
    fs::remove_file(foreign).unwrap();
}

#[test]
fn a_sidecar_that_ends_by_itself_leaves_no_name() {
    let _w = Watchdog::seconds(60);
    let mut sidecar = Options::new().listen();
    let mut client = sidecar.connect();
    let (_file, path) = Segment::make_named(&mut client, 2 * MIB);
    assert!(path.exists());
    sidecar.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(sidecar.exit_code(SOON), 0);
    assert!(!path.exists());
}
