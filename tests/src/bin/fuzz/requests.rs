//! Random requests of every kind, with every field that there is: what the vectors have one by one comes together here, and
//! what a peer chooses (payloads, regions, hello's range, names, lists) has any value.

use nexus_protocol::message::{
    CallFailure, CallLimits, Cancel, Check, ClientHello, Code, CreateState, DisposeState, Execute, Kill, OpenArena,
    PatchState, Precompile, Region, Regions, Resident, Resolution, Resume, SnapshotState, SuspendMode,
};
use nexus_protocol::{ClientMessage, MAGIC, ProtocolVersion};
use nexus_tests::rng::Rng;
use nexus_tests::values;

/// What requests are made of; they borrow from it.
pub struct Words {
    texts: Vec<String>,
    payloads: Vec<Vec<u8>>,
    /// Ids as the sidecar gives them out, and what is nearly one.
    ids: Vec<String>,
}

impl Words {
    pub fn random(rng: &mut Rng) -> Self {
        let text = |rng: &mut Rng| match rng.below(6) {
            0 => String::new(),
            1 => "x".repeat(rng.below(300)),
            2 => "ключ\u{0}\u{1b}[31m".to_owned(),
            3 => "state:read:*".to_owned(),
            4 => "return await $ext.a.b($state.k)".to_owned(),
            _ => format!("k{}", rng.below(10)),
        };
        let id = |rng: &mut Rng| match rng.below(4) {
            0 => format!("{:032X}", rng.next_u64()),
            1 => format!("{:031x}", rng.next_u64()),
            _ => format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64()),
        };
        let payload = |rng: &mut Rng| {
            let mut bytes = values::encode(&values::random(rng, 4));
            if rng.below(3) == 0 {
                rng.mutate(&mut bytes);
            }
            bytes
        };
        Self {
            texts: (0..6).map(|_| text(rng)).collect(),
            payloads: (0..4).map(|_| payload(rng)).collect(),
            ids: (0..3).map(|_| id(rng)).collect(),
        }
    }
}

/// One thing or nothing.
fn maybe<T>(rng: &mut Rng, make: impl FnOnce(&mut Rng) -> T) -> Option<T> {
    (rng.below(2) == 0).then(|| make(rng))
}

/// Numbers that arithmetic trips over, and others.
fn number(rng: &mut Rng) -> u64 {
    const EDGES: [u64; 8] = [0, 1, 127, 1 << 16, u32::MAX as u64, (1 << 53) + 1, i64::MAX as u64, u64::MAX];
    if rng.below(2) == 0 { *rng.pick(&EDGES) } else { rng.next_u64() >> rng.below(64) }
}

pub fn region(rng: &mut Rng) -> Region {
    let crc32 = maybe(rng, |rng| rng.next_u64() as u32);
    Region { generation: number(rng), offset: number(rng), len: number(rng), crc32 }
}

fn regions(rng: &mut Rng) -> Regions {
    if rng.below(2) == 0 {
        return Regions::NONE;
    }
    Regions {
        state: maybe(rng, region),
        set: maybe(rng, region),
        args: maybe(rng, region),
        scope: maybe(rng, region),
        value: maybe(rng, region),
        state_mutations: maybe(rng, region),
        reply: maybe(rng, region),
    }
}

/// One of any kind.
pub fn random<'a>(rng: &mut Rng, words: &'a Words) -> ClientMessage<'a> {
    let text = |rng: &mut Rng| rng.pick(&words.texts).as_str();
    let payload = |rng: &mut Rng| rng.pick(&words.payloads).as_slice();
    let id = |rng: &mut Rng| rng.pick(&words.ids).as_str();
    let texts = |rng: &mut Rng| (0..rng.below(4)).map(|_| rng.pick(&words.texts).as_str()).collect::<Vec<_>>();
    let mode = |rng: &mut Rng| *rng.pick(&[SuspendMode::Await, SuspendMode::Stack]);
    match rng.below(17) {
        0 => ClientMessage::Hello(ClientHello {
            magic: if rng.below(4) == 0 { text(rng) } else { MAGIC },
            min: ProtocolVersion(number(rng) as u16),
            max: ProtocolVersion(number(rng) as u16),
            client: text(rng),
        }),
        1..=3 => {
            let code = if rng.below(4) == 0 { Code::Handler(payload(rng)) } else { Code::Source(text(rng)) };
            let mut execute = Execute::new(code);
            execute.panel_id = maybe(rng, text);
            execute.handler_name = maybe(rng, text);
            match rng.below(3) {
                0 => execute.state = Some(payload(rng)),
                1 => {
                    let expect_version = maybe(rng, number);
                    execute.resident = Some(Resident { id: id(rng), expect_version, exclusive: rng.below(2) == 0 });
                }
                _ => {}
            }
            execute.args = maybe(rng, payload);
            execute.scope = maybe(rng, payload);
            execute.capabilities = texts(rng);
            // a name twice is malformed
            execute.extensions = maybe(rng, |rng| vec![(text(rng), texts(rng))]);
            execute.timeout_ms = maybe(rng, number);
            execute.limits = CallLimits {
                memory_limit_bytes: maybe(rng, number),
                max_host_calls: maybe(rng, number),
                max_state_mutations: maybe(rng, number),
                max_events: maybe(rng, number),
                max_result_bytes: maybe(rng, number),
                max_log_bytes: maybe(rng, number),
                unknown: None,
            };
            execute.strict_capabilities = rng.below(2) == 0;
            execute.suspend_mode = maybe(rng, mode);
            execute.seed = maybe(rng, number);
            execute.regions = regions(rng);
            ClientMessage::Execute(execute)
        }
        4 => ClientMessage::Precompile(Precompile {
            source: text(rng),
            handler_name: maybe(rng, text),
            suspend_mode: maybe(rng, mode),
        }),
        5 | 6 => {
            let resolution = match rng.below(3) {
                0 => Resolution::Value(maybe(rng, payload)),
                1 => Resolution::Value(None),
                _ => {
                    let (name, code) = (maybe(rng, text), maybe(rng, text));
                    Resolution::Failure(CallFailure { message: text(rng), name, code })
                }
            };
            let mut resume = Resume::new(id(rng), resolution);
            resume.regions = regions(rng);
            ClientMessage::Resume(resume)
        }
        7 => ClientMessage::Cancel(match rng.below(2) {
            0 => Cancel::Suspension(id(rng)),
            _ => Cancel::Request(number(rng) as u32),
        }),
        8 => ClientMessage::Check(Check { source: text(rng) }),
        9 => ClientMessage::CreateState(CreateState { state: maybe(rng, payload), regions: regions(rng) }),
        10 | 11 => ClientMessage::PatchState(PatchState {
            id: id(rng),
            set: maybe(rng, payload),
            delete: texts(rng),
            expect_version: maybe(rng, number),
            regions: regions(rng),
        }),
        12 => {
            ClientMessage::SnapshotState(SnapshotState { id: id(rng), keys: maybe(rng, texts), regions: regions(rng) })
        }
        13 => ClientMessage::DisposeState(DisposeState { id: id(rng) }),
        14 => ClientMessage::OpenArena(match rng.below(2) {
            0 => OpenArena::Make { bytes: number(rng) },
            _ => OpenArena::Settle { generation: number(rng), opened: rng.below(2) == 0 },
        }),
        15 => ClientMessage::Kill(Kill { execution: number(rng) }),
        _ => [ClientMessage::Stats, ClientMessage::Metrics, ClientMessage::Ping, ClientMessage::Executions]
            .into_iter()
            .nth(rng.below(4))
            .expect("one of four"),
    }
}
