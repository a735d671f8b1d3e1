//! Seeded fuzzing of everything that reads a peer's bytes: `fuzz --seconds N [--seed S]`. Works on stable Rust.
//!
//! Each iteration has a generator of its own, made from the seed and the iteration's number, so that one failure can be run
//! again alone. What is checked beside "no panic": what decodes encodes to the same message again, and no split of a
//! stream changes the frames that come out of it. The last of the targets is a real sidecar.

mod requests;
mod served;

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nexus_protocol::message::arena_owner;
use nexus_protocol::{
    Capability, CapabilitySet, ClientMessage, Envelope, FrameDecoder, ProtocolVersion, RequestId, SuspensionId,
    VersionRange, decode_client, decode_sidecar, effects, payload,
};
use nexus_tests::golden;
use nexus_tests::rng::Rng;

use crate::requests::Words;
use crate::served::Served;

const MAX_FRAME_BYTES: usize = 1 << 20;
/// Between two looks at the clock.
const BATCH: u64 = 500;

/// Takes bytes that were made for it, or makes its own. Panics when something is wrong.
type Check = Box<dyn FnMut(&[u8], &mut Rng)>;

struct Target {
    name: &'static str,
    check: Check,
    corpus: Vec<Vec<u8>>,
    /// Iterations between two looks at the clock.
    batch: u64,
}

impl Target {
    fn new(name: &'static str, check: impl FnMut(&[u8], &mut Rng) + 'static, corpus: Vec<Vec<u8>>) -> Self {
        Self { name, check: Box::new(check), corpus, batch: BATCH }
    }
}

fn main() -> ExitCode {
    let (seconds, seed) = match arguments() {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprintln!("fuzz: {problem}\nusage: fuzz --seconds N [--seed S]");
            return ExitCode::from(2);
        }
    };
    let mut targets = targets();
    println!("seed {seed}, {seconds} s");
    std::panic::set_hook(Box::new(|_| {}));
    let (mut passed, mut failed) = (0, 0);
    let share = Duration::from_secs(seconds) / targets.len() as u32;
    for target in &mut targets {
        match fuzz(target, seed, share) {
            Ok(iterations) => {
                passed += 1;
                println!("{:<16} {iterations:>10} iterations", target.name);
            }
            Err(failure) => {
                failed += 1;
                println!("{:<16} FAILED {failure}", target.name);
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn arguments() -> Result<(u64, u64), String> {
    let (mut seconds, mut seed) = (None, 1);
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let number = value.parse::<u64>().map_err(|_| format!("{flag}: {value} is no number"))?;
        match flag.as_str() {
            "--seconds" => seconds = Some(number),
            "--seed" => seed = number,
            _ => return Err(format!("unknown argument {flag}")),
        }
    }
    Ok((seconds.ok_or("--seconds is missing")?, seed))
}

fn targets() -> Vec<Target> {
    let vectors = golden::vectors();
    let of = |sorts: &[&str]| -> Vec<Vec<u8>> {
        vectors
            .iter()
            .filter(|v| sorts.contains(&v.sort()) && v.bytes.len() < 100_000)
            .map(|v| v.bytes.clone())
            .collect()
    };
    let bodies = of(&["message", "rejection"])
        .into_iter()
        .filter_map(|frame| frame.get(4..).map(<[u8]>::to_vec))
        .collect::<Vec<_>>();
    let mut payloads = of(&["payload", "payload-rejection"]);
    payloads.push(
        rmp_serde::to_vec(&serde_json::json!({"a": [1, 2, {"b": "c"}], "d": -1.5})).expect("JSON fits MessagePack"),
    );
    let texts = |all: &[&str]| all.iter().map(|t| t.as_bytes().to_vec()).collect::<Vec<_>>();
    let tokens = texts(&[
        "state:read:a",
        "state:write:*",
        "events:emit:system:error",
        "view:update:grid",
        "ext:http",
        "ext:http.get",
        "ext:*",
        "crypto:random",
        "",
    ]);
    let ids = texts(&["00112233445566778899aabbccddeeff", "FF112233445566778899aabbccddeeff", "0", ""]);
    let arenas =
        texts(&["nexus-sidecar.17.00112233445566778899aabbccddeeff", "nexus-sidecar.0.", "../nexus-sidecar.1.x"]);
    // started when it is its turn
    let mut served = None;
    let peer = move |_: &[u8], rng: &mut Rng| served.get_or_insert_with(Served::start).meet(rng);
    let nothing = || vec![Vec::new()];
    vec![
        Target::new("decode_client", client_message, bodies.clone()),
        Target::new("decode_sidecar", sidecar_message, bodies),
        Target::new("frame_decoder", frames, of(&["message", "rejection", "stream"])),
        Target::new("payload", payload_bytes, payloads),
        Target::new("capability", capability, tokens),
        Target::new("suspension_id", suspension_id, ids),
        Target::new("requests", any_request, nothing()),
        Target::new("regions", region, nothing()),
        Target::new("versions", versions, nothing()),
        Target::new("arena_names", arena_name, arenas),
        Target { batch: 1, ..Target::new("a sidecar", peer, nothing()) },
    ]
}

fn fuzz(target: &mut Target, seed: u64, share: Duration) -> Result<u64, String> {
    let started = Instant::now();
    let mut iteration = 0;
    while started.elapsed() < share {
        for _ in 0..target.batch {
            let mut rng = Rng::new(Rng::new(seed).next_u64() ^ iteration);
            let mut bytes = rng.pick(&target.corpus).clone();
            rng.mutate(&mut bytes);
            if catch_unwind(AssertUnwindSafe(|| (target.check)(&bytes, &mut rng))).is_err() {
                return Err(format!("seed {seed}, iteration {iteration}, input {}", hex(&bytes)));
            }
            iteration += 1;
        }
    }
    Ok(iteration)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

// ---- what is checked ----

fn client_message(body: &[u8], _: &mut Rng) {
    match decode_client(body) {
        // the name of a limit that does not exist is only kept so that it can be refused
        Ok(Envelope { message: ClientMessage::Execute(execute), .. }) if execute.limits.unknown.is_some() => {
            assert!(execute.check().is_err());
        }
        Ok(envelope) => {
            let mut out = Vec::new();
            envelope.message.encode(envelope.id, MAX_FRAME_BYTES, &mut out).expect("what was decoded can be encoded");
            let again = decode_client(&out[4..]).expect("what was encoded can be decoded");
            if matches!(envelope.message, ClientMessage::ExecuteMany(_)) {
                // such a name may stand in any item, or in what they have in common: it is not written
                let mut twice = Vec::new();
                again.message.encode(again.id, MAX_FRAME_BYTES, &mut twice).expect("what was decoded can be encoded");
                return assert_eq!(twice, out);
            }
            assert_eq!((again.id, &again.message), (envelope.id, &envelope.message));
        }
        Err(error) => assert!(!error.to_wire().message.is_empty()),
    }
}

fn sidecar_message(body: &[u8], _: &mut Rng) {
    match decode_sidecar(body) {
        Ok(envelope) => {
            let mut out = Vec::new();
            envelope.message.encode(envelope.id, MAX_FRAME_BYTES, &mut out).expect("what was decoded can be encoded");
            // a figure may be NaN, which is not equal to itself: the bytes have to be
            let again = decode_sidecar(&out[4..]).expect("what was encoded can be decoded");
            let mut twice = Vec::new();
            again.message.encode(again.id, MAX_FRAME_BYTES, &mut twice).expect("what was decoded can be encoded");
            assert_eq!(twice, out);
        }
        Err(error) => assert!(!error.to_wire().message.is_empty()),
    }
}

/// Every kind of request with any values in it is read as it was written, and harms nobody when something happens to its bytes.
fn any_request(_: &[u8], rng: &mut Rng) {
    let words = Words::random(rng);
    let message = requests::random(rng, &words);
    let (is_hello, mut frame) = (matches!(message, ClientMessage::Hello(_)), Vec::new());
    let id = RequestId(if is_hello { 0 } else { 1 + rng.below(1 << 30) as u32 });
    message.encode(id, MAX_FRAME_BYTES, &mut frame).expect("it fits a frame");
    match decode_client(&frame[4..]) {
        Ok(again) => assert_eq!((again.id, &again.message), (id, &message)),
        // whom it does not know, and a name that is too long, it does not talk to
        Err(error) => assert!(is_hello, "{error}: {message:?}"),
    }
    let mut body = frame.split_off(4);
    rng.mutate(&mut body);
    client_message(&body, rng);
}

/// A place is within its arena exactly when its end, as a number that cannot wrap, is.
fn region(_: &[u8], rng: &mut Rng) {
    let region = requests::region(rng);
    let bytes =
        if rng.below(2) == 0 { region.offset.wrapping_add(region.len) } else { rng.next_u64() >> rng.below(64) };
    let end = u128::from(region.offset) + u128::from(region.len);
    let range = region.range(bytes);
    assert_eq!(range.is_some(), end <= u128::from(bytes), "{region:?} of {bytes}");
    if let Some(range) = range {
        assert_eq!((range.start, u128::from(range.end)), (region.offset, end));
    }
}

/// What two sides agree on is the newest that both speak, whoever asks.
fn versions(_: &[u8], rng: &mut Rng) {
    let mut range = || {
        let any = |rng: &mut Rng| {
            let few = rng.below(6) as u16;
            ProtocolVersion(if rng.below(4) == 0 { u16::MAX - few } else { few })
        };
        VersionRange { min: any(rng), max: any(rng) }
    };
    let (ours, theirs) = (range(), range());
    let speaks = |range: VersionRange, version: u16| range.min.0 <= version && version <= range.max.0;
    let newest =
        (0..=u16::MAX).rev().filter(|v| *v < 8 || *v > u16::MAX - 8).find(|v| speaks(ours, *v) && speaks(theirs, *v));
    assert_eq!(ours.negotiate(theirs).ok(), newest.map(ProtocolVersion), "{ours}, {theirs}");
    assert_eq!(theirs.negotiate(ours).ok(), newest.map(ProtocolVersion), "{ours}, {theirs}");
}

/// A name that is taken for one of an arena leads nowhere else.
fn arena_name(bytes: &[u8], _: &mut Rng) {
    let name = String::from_utf8_lossy(bytes);
    if let Some(pid) = arena_owner(&name) {
        assert!(pid > 0 && !name.contains('/') && name.is_ascii() && name.len() < 64, "{name}");
    }
}

/// The frames of a stream, and whether it ended in an error, when it arrives in pieces.
fn read_in_pieces(stream: &[u8], mut piece: impl FnMut(usize) -> usize, owned: bool) -> (Vec<Vec<u8>>, bool) {
    let mut decoder = FrameDecoder::new(MAX_FRAME_BYTES);
    let (mut found, mut rest) = (Vec::new(), stream);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(piece(rest.len()).clamp(1, rest.len()));
        rest = later;
        decoder.push(now);
        loop {
            let next = if owned {
                decoder.next_owned().map(|frame| frame.map(|f| f.to_vec()))
            } else {
                decoder.next_frame().map(|frame| frame.map(<[u8]>::to_vec))
            };
            match next {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
    }
    assert!(decoder.capacity_bytes() <= stream.len() * 2 + (1 << 16), "memory follows what arrived");
    (found, false)
}

fn frames(stream: &[u8], rng: &mut Rng) {
    let doubled = [stream, stream].concat();
    let whole = read_in_pieces(&doubled, |n| n, false);
    let owned = rng.below(2) == 0;
    let pieces = read_in_pieces(&doubled, |n| 1 + rng.below(n.min(64)), owned);
    assert_eq!(pieces, whole);
}

fn payload_bytes(bytes: &[u8], _: &mut Rng) {
    let valid = payload::validate(bytes);
    let shaped = payload::validate_shape(bytes);
    assert!(valid.is_err() || shaped.is_ok());
    assert_eq!(payload::validate_inside(bytes, 0), valid);
    // what fits with something around it fits without
    assert!(valid.is_ok() || payload::validate_inside(bytes, 3).is_err());
    if let Ok(length) = payload::scan(bytes) {
        assert!(length > 0 && length <= bytes.len());
        assert_eq!(shaped.is_ok(), length == bytes.len());
    }
    if let Ok(entries) = payload::map_entries(bytes) {
        let (claimed, mut count) = (entries.claimed(), 0u32);
        for entry in entries {
            let Ok((_, value)) = entry else { break };
            count += 1;
            assert_eq!(payload::scan(value), Ok(value.len()));
        }
        assert!(count <= claimed);
    }
    if let Ok(items) = payload::array_items(bytes) {
        for value in items.map_while(Result::ok) {
            assert_eq!(payload::scan(value), Ok(value.len()));
        }
    }
    if let Ok(list) = effects::effects(bytes) {
        for effect in list.map_while(Result::ok) {
            let _ = (effect.field("key"), effect.text("op"), effect.payload());
        }
    }
    let _ = payload::as_str(bytes);
}

fn capability(bytes: &[u8], _: &mut Rng) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(capability) = Capability::parse(&text) {
        assert_eq!(capability.to_string(), text);
        let set = CapabilitySet::parse([&*text]).expect("a token is a set of one");
        assert!(set.covers(&capability));
    } else {
        assert!(CapabilitySet::parse([&*text]).is_err());
    }
}

fn suspension_id(bytes: &[u8], _: &mut Rng) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(id) = text.parse::<SuspensionId>() {
        assert_eq!(id.to_string(), text);
    }
}
