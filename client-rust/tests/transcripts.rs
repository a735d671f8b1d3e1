//! What later and older sidecars say: prepared bytes of tests/conformance, which the Node client reads too.

mod support;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nexus_client::{Client, Error};
use serde_json::{Value as Json, json};
use support::{scratch, watched};

// shows P-unknown-code
#[test]
fn every_transcript_is_understood() {
    watched(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance/transcripts.json");
        let transcripts: Vec<Json> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert!(transcripts.len() >= 10);
        let folder = scratch("transcripts");
        for (index, transcript) in transcripts.iter().enumerate() {
            let socket = folder.join(index.to_string());
            let _ = std::fs::remove_file(&socket);
            let listener = UnixListener::bind(&socket).unwrap();
            let parts = ["hello", "answer"].map(|part| transcript[part].as_str().map(bytes));
            let peer = std::thread::spawn(move || speak(&listener.accept().unwrap().0, &parts));
            let told = call(&socket, transcript["call"].as_str().unwrap())
                .unwrap_or_else(|error| json!({ "code": error.code().as_str(), "retryable": error.retryable() }));
            assert_eq!(told, transcript["expect"], "{}", transcript["name"]);
            peer.join().unwrap();
        }
    });
}

fn call(socket: &Path, call: &str) -> Result<Json, Error> {
    let client = Client::connect(socket).wait()?;
    if call == "ping" {
        client.ping().wait()?;
        return Ok(json!({ "ok": true }));
    }
    let segment = client.execute("return 0").wait()?.into_result()?;
    Ok(json!({ "value": segment.value::<u32>()? }))
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Answers each frame with the next part, until the client leaves.
fn speak(mut stream: &UnixStream, parts: &[Option<Vec<u8>>]) {
    let mut parts = parts.iter().flatten();
    let mut length = [0; 4];
    while stream.read_exact(&mut length).is_ok() {
        let mut body = vec![0; u32::from_le_bytes(length) as usize];
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        if let Some(part) = parts.next() {
            let _ = stream.write_all(part);
        }
    }
}
