//! Runs the Node side, with the client that is built in this checkout.

use std::path::Path;
use std::process::{Command, Stdio};

use nexus_tests::process::binary;
use serde_json::Value;

use crate::{Scale, echo};

const SCRIPT: &str = include_str!("node.mjs");

/// What Node measured, or in words why it could not.
pub fn figures(scale: Scale) -> Value {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client-node/dist/esm/index.js");
    let Ok(client) = client.canonicalize() else {
        return "not measured: client-node is not built (npm run build in client-node)".into();
    };
    let server = echo::Server::start();
    let output = Command::new("node")
        .args(["--input-type=module", "--eval", SCRIPT])
        .env("BENCH_ECHO_PATH", server.path())
        .env("BENCH_CLIENT", client)
        .env("BENCH_COUNT", scale.of(5_000).to_string())
        .env("NEXUS_SIDECAR_BIN", binary())
        .stderr(Stdio::inherit())
        .output();
    match output {
        Err(e) => format!("not measured: node cannot be run: {e}").into(),
        Ok(output) => {
            assert!(output.status.success(), "the Node side failed: {}", String::from_utf8_lossy(&output.stdout));
            serde_json::from_slice(&output.stdout).expect("the Node side prints JSON")
        }
    }
}
