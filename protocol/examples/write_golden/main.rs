//! Writes `protocol/golden`: the vectors that every client and the sidecar are tested against.
//!
//! `cargo run -p nexus-protocol --example write_golden` writes them, `-- --check` compares with what is there. The
//! bytes of rejections are put together by hand, so that a fault of the encoder cannot hide a fault of the decoder.
//! A vector that was ever released is never changed, only joined by others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

mod bytes;
mod lengths;
mod lenient;
mod many;
mod messages;
mod payloads;
mod rejections;
mod tagged;

/// One vector: the bytes of `NAME.hex` and the meaning in `NAME.json`.
struct Vector {
    name: String,
    bytes: Vec<u8>,
    meaning: Value,
}

impl Vector {
    fn new(name: impl Into<String>, bytes: Vec<u8>, meaning: Value) -> Self {
        Self { name: name.into(), bytes, meaning }
    }
}

fn main() -> ExitCode {
    let check = std::env::args().any(|argument| argument == "--check");
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut files = BTreeMap::from([(directory.join("README.md"), README.to_owned())]);
    let vectors = [messages::all(), lenient::all(), many::all(), rejections::all(), lengths::all(), payloads::all()]
        .into_iter()
        .flatten();
    for Vector { name, bytes, meaning } in vectors {
        let hex = directory.join(format!("{name}.hex"));
        let text = serde_json::to_string_pretty(&meaning).expect("plain values") + "\n";
        assert!(files.insert(hex.clone(), to_hex(&bytes)).is_none(), "two vectors are called {name}");
        files.insert(hex.with_extension("json"), text);
    }
    if check { compare(&directory, &files) } else { write(&files) }
}

fn write(files: &BTreeMap<PathBuf, String>) -> ExitCode {
    for (path, text) in files {
        std::fs::write(path, text).expect("the directory of the vectors can be written");
    }
    println!("{} files", files.len());
    ExitCode::SUCCESS
}

fn compare(directory: &Path, files: &BTreeMap<PathBuf, String>) -> ExitCode {
    let entries = std::fs::read_dir(directory).expect("the directory of the vectors can be read");
    let there: BTreeSet<PathBuf> = entries.map(|entry| entry.expect("a readable entry").path()).collect();
    let wanted: BTreeSet<PathBuf> = files.keys().cloned().collect();
    let mut differing: Vec<_> = there.symmetric_difference(&wanted).cloned().collect();
    differing.extend(
        files
            .iter()
            .filter(|(path, text)| std::fs::read_to_string(path).is_ok_and(|old| old != **text))
            .map(|f| f.0.clone()),
    );
    for path in &differing {
        println!("differs: {}", path.display());
    }
    if differing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Hex digits, 64 bytes a line, so that a difference can be looked at.
fn to_hex(bytes: &[u8]) -> String {
    let line = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    bytes.chunks(64).map(line).collect()
}

/// What a peer does with a rejected body.
fn rejected(about: &str, code: &str, id: u32, closes: bool, contains: &str) -> Value {
    json!({
        "about": about,
        "sort": "rejection",
        "direction": "client",
        "error": { "code": code, "id": id, "closes": closes, "contains": contains },
    })
}

const README: &str = r#"# Golden vectors

Each vector is two files: `NAME.hex` (bytes, hex digits, line breaks mean nothing) and `NAME.json` (what they mean).
Written by `cargo run -p nexus-protocol --example write_golden`; never edited, never changed once released.
`about` says in words what the vector is for. `sort` says what to do with it:

| sort | bytes | a reader checks |
| --- | --- | --- |
| `message` | one whole frame of `direction` (`client` = sent by clients) | `kind`, `id` and `fields` are what it decodes to; where `canonical` is true, encoding them gives the same bytes (keys in any order count as the same, in the writer's order as the best form) |
| `rejection` | one whole frame that a sidecar refuses | the answer: error `code`, with `id`, a message that contains `contains`, and whether the connection `closes` |
| `stream` | bytes of a connection, read with `maxFrameBytes` as the limit | `frames`: lengths of the bodies that come out; then `end`: `boundary` (nothing is left), `incomplete` (a frame is unfinished), `empty` or `too-large` (framing error) |
| `payload` | one payload | `value` is what the handler sees; where `canonical` is true, sending that value gives the same bytes |
| `payload-rejection` | bytes that are no payload | `reason`: `truncated`, `trailing`, `too-deep`, `marker`, `extension`, `timestamp`, `key` or `utf8`. A reader that decodes strings leniently may accept `utf8` |

Values in `fields` and `value` are JSON where JSON has them, else an object with one key:
`{"$bin": hex}`, `{"$bigint": decimal}`, `{"$int": decimal}` (a control value beyond 2^53), `{"$number": "NaN" | "Infinity" |
"-Infinity" | "-0"}`, `{"$date": ms since 1970}`, `{"$map": [[key, value]..]}` (a map with a key `$..` or `__proto__`).
`{"$nested": n}` stands for n arrays around one another, the innermost empty or holding nil.
"#;
