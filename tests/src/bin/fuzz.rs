//! Seeded fuzzing of everything that reads a peer's bytes: `fuzz --seconds N [--seed S]`. Works on stable Rust.
//!
//! Each iteration has a generator of its own, made from the seed and the iteration's number, so that one failure can be run
//! again alone. What is checked beside "no panic": what decodes encodes to the same message again, and no split of a
//! stream changes the frames that come out of it.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nexus_protocol::{
    Capability, CapabilitySet, ClientMessage, Envelope, FrameDecoder, SuspensionId, decode_client, decode_sidecar,
    effects, payload,
};
use nexus_tests::golden;
use nexus_tests::rng::Rng;

const MAX_FRAME_BYTES: usize = 1 << 20;
/// Between two looks at the clock.
const BATCH: u64 = 500;

/// Takes bytes that were made for it. Panics when something is wrong.
type Check = fn(&[u8], &mut Rng);

struct Target {
    name: &'static str,
    check: Check,
    corpus: Vec<Vec<u8>>,
}

fn main() -> ExitCode {
    let (seconds, seed) = match arguments() {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprintln!("fuzz: {problem}\nusage: fuzz --seconds N [--seed S]");
            return ExitCode::from(2);
        }
    };
    let targets = targets();
    println!("seed {seed}, {seconds} s");
    std::panic::set_hook(Box::new(|_| {}));
    let (mut passed, mut failed) = (0, 0);
    for target in &targets {
        let share = Duration::from_secs(seconds) / targets.len() as u32;
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
    vec![
        Target { name: "decode_client", check: client_message, corpus: bodies.clone() },
        Target { name: "decode_sidecar", check: sidecar_message, corpus: bodies },
        Target { name: "frame_decoder", check: frames, corpus: of(&["message", "rejection", "stream"]) },
        Target { name: "payload", check: payload_bytes, corpus: payloads },
        Target { name: "capability", check: capability, corpus: tokens },
        Target { name: "suspension_id", check: suspension_id, corpus: ids },
    ]
}

fn fuzz(target: &Target, seed: u64, share: Duration) -> Result<u64, String> {
    let started = Instant::now();
    let mut iteration = 0;
    while started.elapsed() < share {
        for _ in 0..BATCH {
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
