//! The golden vectors of the protocol: frames and payloads, good and bad.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// One vector.
#[derive(Clone, Debug)]
pub struct Vector {
    pub name: String,
    pub bytes: Vec<u8>,
    pub json: Value,
}

impl Vector {
    pub fn sort(&self) -> &str {
        self.json["sort"].as_str().unwrap_or_default()
    }

    /// Whether it is a frame that a client may send, or one that a sidecar refuses.
    pub fn is_for_sidecar(&self) -> bool {
        matches!(self.sort(), "rejection" | "message") && self.json["direction"] == "client"
    }
}

/// All vectors, by name.
pub fn vectors() -> Vec<Vector> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/golden");
    let mut found: Vec<Vector> = fs::read_dir(&dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .filter_map(|entry| {
            let path = entry.expect("a directory entry").path();
            (path.extension()? == "hex").then(|| read(&path))
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(!found.is_empty(), "{} holds no vectors", dir.display());
    found
}

fn read(path: &Path) -> Vector {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let digits: Vec<u8> = read(path).bytes().filter(u8::is_ascii_hexdigit).collect();
    let bytes = digits.chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).expect("ASCII");
        u8::from_str_radix(pair, 16).expect("two hex digits")
    });
    let json =
        serde_json::from_str(&read(&path.with_extension("json"))).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Vector { name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), bytes: bytes.collect(), json }
}
