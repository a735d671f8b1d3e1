//! Well-formed frames that no writer of ours makes, and a reader has to accept.

use serde_json::json;

use crate::bytes::{bin, body, frame, map, nil, text};
use crate::{Vector, tagged};

pub(crate) fn all() -> Vec<Vector> {
    let source = ("source", text("return 1"));
    let wide_ints = [&[0x93, 0xcc, 0x09, 0xd3, 0, 0, 0, 0, 0, 0, 0, 7][..], &[0xdf, 0, 0, 0, 0]].concat();
    let wide_texts = {
        let mut fields = vec![0xde, 0, 1, 0xdb, 0, 0, 0, 6];
        fields.extend_from_slice(b"source");
        fields.extend_from_slice(&[0xda, 0, 1, b'1']);
        fields
    };
    let unknown = map(&[("later", map(&[("more", text("x"))])), ("flag", vec![0xc3])]);
    let nils = map(&[
        source.clone(),
        ("handler", nil()),
        ("state", nil()),
        ("panelId", nil()),
        ("capabilities", nil()),
        ("limits", nil()),
        ("seed", nil()),
    ]);
    let empties =
        map(&[source.clone(), ("capabilities", vec![0x90]), ("limits", vec![0x80]), ("extensions", vec![0x80])]);
    let wide_timeout = map(&[source.clone(), ("timeoutMs", vec![0xd3, 0, 0, 0, 0, 0, 0, 0, 5])]);
    let bin_32 = map(&[source.clone(), ("args", [vec![0xc6, 0, 0, 0, 1], vec![0xc0]].concat())]);
    let deep = |levels: usize| map(&[("deep", crate::bytes::nested_arrays(levels - 1))]);
    let last_first = map(&[("args", bin(&[0xc0])), source]);
    let float = [&[0xcb][..], &0.5f64.to_be_bytes()].concat();
    let counts = "totalExecutions activeInstances availableInstances suspendedInstances p50ExecutionTimeUs p95ExecutionTimeUs \
                  p99ExecutionTimeUs totalMemoryBytes instancesCreated instancesReused cacheEntries cacheSizeBytes queued uptimeMs";
    let mut few_stats = vec![("cacheHitRate", float.clone()), ("avgExecutionTimeUs", float)];
    few_stats.extend(counts.split(' ').map(|name| (name, vec![7])));
    let few_stats = map(&few_stats);
    let mut vectors = vec![
        accepted("accept-fewer-stats", "stats without those that may be missing", "sidecar", 0x87, 7, &few_stats),
        accepted("accept-unknown-keys", "unknown keys are ignored", "client", 0x09, 7, &unknown),
        accepted("accept-wide-strs", "strs and maps in longer forms than they need", "client", 0x06, 7, &wide_texts),
        accepted("accept-nil-for-absent", "nil under an optional key means absent", "client", 0x02, 7, &nils),
        accepted(
            "accept-empty-containers",
            "empty is not absent for extensions: then every call is refused",
            "client",
            0x02,
            7,
            &empties,
        ),
        accepted("accept-signed-int", "a positive number in a signed form", "client", 0x02, 7, &wide_timeout),
        accepted("accept-bin-32", "a bin in its longest form", "client", 0x02, 7, &bin_32),
        accepted("accept-any-order", "keys in any order", "client", 0x02, 7, &last_first),
        accepted("accept-depth-15", "15 levels of control values", "client", 0x09, 7, &deep(15)),
        accepted("accept-depth-16", "16 levels of control values, the most there may be", "client", 0x09, 7, &deep(16)),
        accepted("accept-largest-id", "the largest id", "client", 0x09, u32::MAX, &[0x80]),
    ];
    let meaning = json!({
        "about": "kind, id and map in longer forms than they need", "sort": "message", "direction": "client",
        "canonical": false, "kind": 0x09, "id": 7, "fields": {},
    });
    vectors.push(Vector::new("message-accept-wide-envelope", frame(&wide_ints), meaning));
    vectors
}

pub(crate) fn accepted(name: &str, about: &str, direction: &str, kind: u8, id: u32, fields: &[u8]) -> Vector {
    let meaning = json!({
        "about": about, "sort": "message", "direction": direction, "canonical": false,
        "kind": kind, "id": id, "fields": tagged::control(fields),
    });
    Vector::new(format!("message-{name}"), frame(&body(kind, id, fields)), meaning)
}
