//! Large payloads from the Rust client, by socket and by shared memory: a state that comes with the request, and an answer
//! (the snapshot of a resident state). Both ways in turn, so that what else the machine does falls on both.

use std::time::{Duration, Instant};

use nexus_client::{Client, ClientOptions, Context, Payload, ResidentState, SpawnOptions};
use nexus_tests::bench::Sample;
use nexus_tests::process::binary;
use nexus_tests::run::pack;
use nexus_tests::temp::TempDir;
use serde_json::{Map, Value};

use crate::state::state;
use crate::{Scale, summary};

/// Small enough for every size that is measured.
const THRESHOLD: usize = 16 << 10;

/// One of the two ways.
struct Way {
    name: &'static str,
    client: Client,
    resident: ResidentState,
    requests: Vec<Duration>,
    answers: Vec<Duration>,
}

impl Way {
    fn new(name: &'static str, shared: bool, cache: &TempDir, payload: &Payload) -> Self {
        let options = ClientOptions::new().shared_memory(shared).shared_memory_threshold_bytes(THRESHOLD);
        let spawn = SpawnOptions::new().binary(binary()).cache_dir(cache.path().join(name)).client(options);
        let client =
            Client::spawn(spawn.max_instances(2).max_host_calls(1_000_000)).wait().expect("the sidecar starts");
        let resident = client.create_state_payload(payload).wait().expect("a state");
        Self { name, client, resident, requests: Vec::new(), answers: Vec::new() }
    }

    fn request(&self, context: &Context) {
        let segment = self.client.execute("return $state.r000000.n").context(context).wait().expect("an answer");
        assert_eq!(segment.value::<u32>().expect("a number"), 0);
    }

    fn answer(&self, bytes: usize) {
        assert_eq!(self.resident.snapshot().wait().expect("an answer").state.as_bytes().len(), bytes);
    }
}

/// With the fastest tenth, which says most on a machine that is busy.
fn with_p10(sample: &Sample) -> Value {
    let mut figure = summary(sample);
    figure["p10Us"] = (sample.percentile(10.0).as_secs_f64() * 1e6).into();
    figure
}

pub fn figures(scale: Scale) -> Map<String, Value> {
    let mut figures = Map::new();
    let cache = TempDir::new();
    for kilobytes in [64, 128, 256, 1 << 10, 10 << 10] {
        let bytes = pack(&state(kilobytes << 10));
        let length = bytes.len();
        let payload = Payload::from_bytes(bytes);
        let context = Context::new().state_payload(payload.clone()).grant("state:read:r000000");
        let mut ways =
            [("Socket", false), ("Arena", true)].map(|(name, shared)| Way::new(name, shared, &cache, &payload));
        let count = scale.of(300);
        for round in 0..count + count / 5 {
            for way in &mut ways {
                let started = Instant::now();
                way.request(&context);
                let requested = Instant::now();
                way.answer(length);
                if round >= count / 5 {
                    way.requests.push(requested - started);
                    way.answers.push(requested.elapsed());
                }
            }
        }
        for way in ways {
            let arena = way.client.stats().wait().expect("figures").arena_bytes;
            assert_eq!(arena > 0, way.name == "Arena");
            figures.insert(format!("request{kilobytes}KB{}", way.name), with_p10(&Sample::from(way.requests)));
            figures.insert(format!("answer{kilobytes}KB{}", way.name), with_p10(&Sample::from(way.answers)));
        }
    }
    figures
}
