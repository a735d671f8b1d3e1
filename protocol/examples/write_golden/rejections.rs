//! Frames that a sidecar refuses: what is wrong with each, and the answer.

use crate::bytes::{array, bin, body, frame, map, nested_arrays, nil, text, uint};
use crate::{Vector, rejected};

const HELLO: u8 = 0x01;
const EXECUTE: u8 = 0x02;
const PRECOMPILE: u8 = 0x03;
const RESUME: u8 = 0x04;
const CANCEL: u8 = 0x05;
const CHECK: u8 = 0x06;
const PING: u8 = 0x09;
const ID: u32 = 7;

pub(crate) fn all() -> Vec<Vector> {
    [envelopes(), fields(), types(), rules(), values()].into_iter().flatten().collect()
}

/// The array around the message.
fn envelopes() -> Vec<Vector> {
    let envelope = "the body is not [kind, id, fields]";
    let ping = body(PING, ID, &[0x80]);
    vec![
        malformed("body-nil", "not an array", vec![0xc0], 0, envelope),
        malformed("body-map", "a map", vec![0x80], 0, envelope),
        malformed("body-never-used", "a marker that MessagePack never uses", vec![0xc1], 0, envelope),
        malformed("body-json", "JSON", br#"{"kind":9}"#.to_vec(), 0, envelope),
        malformed("body-empty-array", "no elements", vec![0x90], 0, envelope),
        malformed("body-two-elements", "no fields", vec![0x92, PING, 7], ID, envelope),
        malformed("body-four-elements", "one element too many", vec![0x94, PING, 7, 0x80, 0x80], ID, envelope),
        malformed(
            "body-claims-2-32",
            "an array of 2^32-1 elements",
            [&[0xdd, 0xff, 0xff, 0xff, 0xff][..], &ping[1..]].concat(),
            ID,
            envelope,
        ),
        malformed("body-ends-in-kind", "ends behind the array header", vec![0x93], 0, envelope),
        malformed("body-ends-in-id", "ends within the id", vec![0x93, PING, 0xce, 0, 0], 0, envelope),
        malformed("body-ends-before-fields", "ends behind the id", vec![0x93, PING, 7], ID, "fields"),
        malformed("body-trailing-byte", "a byte behind the message", [ping.clone(), vec![0xc0]].concat(), ID, "behind"),
        malformed("body-trailing-message", "a second message in the frame", ping.repeat(2), ID, "behind"),
        malformed("kind-text", "a kind that is a str", [&[0x93][..], &text("ping"), &[7, 0x80]].concat(), 0, envelope),
        malformed("kind-256", "a kind beyond u8", vec![0x93, 0xcd, 1, 0, 7, 0x80], 0, envelope),
        malformed("kind-negative", "a negative kind", vec![0x93, 0xff, 7, 0x80], 0, envelope),
        malformed("id-negative", "a negative id", vec![0x93, PING, 0xff, 0x80], 0, envelope),
        malformed("id-2-32", "an id beyond u32", vec![0x93, PING, 0xcf, 0, 0, 0, 1, 0, 0, 0, 0, 0x80], 0, envelope),
        malformed("id-float", "an id that is a float", vec![0x93, PING, 0xca, 0x40, 0xe0, 0, 0, 0x80], 0, envelope),
        malformed("id-nil", "no id", vec![0x93, PING, 0xc0, 0x80], 0, envelope),
        malformed("id-0-of-request", "a request needs an id", body(PING, 0, &[0x80]), 0, "id 0"),
        malformed("id-of-hello", "hello has id 0", body(HELLO, ID, &hello("nexus-sidecar", 2, 2, "c")), ID, "id 7"),
        goes_on("kind-unknown", "a kind of a later version", body(0x7f, ID, &[0x80]), "unknown kind 0x7f"),
        goes_on("kind-0", "kind 0", body(0, ID, &[0x80]), "unknown kind 0x00"),
        goes_on("kind-of-sidecar", "a kind of the other direction", body(0x89, ID, &[0x80]), "unknown kind 0x89"),
        malformed(
            "kind-unknown-malformed",
            "an unknown kind does not excuse broken fields",
            body(0x7f, ID, &[0xc0]),
            ID,
            "not a map",
        ),
    ]
}

/// Hello, and keys that are missing or too many.
fn fields() -> Vec<Vector> {
    let source = || ("source", text("return 1"));
    let suspension = || ("suspension", text("00112233445566778899aabbccddeeff"));
    let failure = || ("error", map(&[("message", text("no"))]));
    let request = || ("request", uint(3));
    vec![
        malformed(
            "hello-magic",
            "another protocol's hello",
            body(HELLO, 0, &hello("nexus-sidecaR", 2, 2, "c")),
            0,
            "magic",
        ),
        malformed(
            "execute-two-states",
            "a state and a resident one",
            body(EXECUTE, ID, &map(&[source(), ("state", bin(&[0x80])), ("resident", map(&[("id", text("x"))]))])),
            ID,
            "exclude one another",
        ),
        malformed(
            "create-state-text",
            "a state that is a str",
            body(0x0b, ID, &map(&[("state", text("x"))])),
            ID,
            "expected a bin",
        ),
        malformed("open-arena-nothing", "neither form", body(0x0f, ID, &[0x80]), ID, "have to be there"),
        malformed(
            "open-arena-both",
            "both forms",
            body(0x0f, ID, &map(&[("bytes", uint(1)), ("generation", uint(1)), ("opened", vec![0xc3])])),
            ID,
            "have to be there",
        ),
        malformed(
            "region-negative",
            "a region before the arena",
            body(
                EXECUTE,
                ID,
                &map(&[
                    source(),
                    (
                        "regions",
                        map(&[("state", map(&[("generation", uint(1)), ("offset", vec![0xff]), ("len", uint(1))]))]),
                    ),
                ]),
            ),
            ID,
            "regions",
        ),
        malformed(
            "region-text",
            "a region that is a str",
            body(EXECUTE, ID, &map(&[source(), ("regions", map(&[("args", text("x"))]))])),
            ID,
            "regions",
        ),
        malformed("patch-state-no-id", "a patch of nothing", body(0x0c, ID, &[0x80]), ID, "missing field `id`"),
        malformed(
            "hello-long-name",
            "a client name of 129 bytes",
            body(HELLO, 0, &hello("nexus-sidecar", 2, 2, &"c".repeat(129))),
            0,
            "128",
        ),
        malformed(
            "hello-without-max",
            "no max",
            body(HELLO, 0, &map(&[("magic", text("nexus-sidecar")), ("min", uint(2)), ("client", text("c"))])),
            0,
            "`max`",
        ),
        malformed(
            "hello-version-65536",
            "a version beyond u16",
            body(HELLO, 0, &hello("nexus-sidecar", 2, 65_536, "c")),
            0,
            "`max`",
        ),
        malformed("hello-future", "no common version", body(HELLO, 0, &hello("nexus-sidecar", 3, 4, "c")), 0, "2 to 2"),
        malformed("hello-past", "a version of before", body(HELLO, 0, &hello("nexus-sidecar", 1, 1, "c")), 0, "1 to 1"),
        malformed(
            "hello-empty-range",
            "min above max",
            body(HELLO, 0, &hello("nexus-sidecar", 3, 2, "c")),
            0,
            "3 to 2",
        ),
        malformed("hello-version-0", "only version 0", body(HELLO, 0, &hello("nexus-sidecar", 0, 0, "c")), 0, "0 to 0"),
        malformed("fields-nil", "fields that are nil", body(PING, ID, &nil()), ID, "not a map"),
        malformed("fields-array", "fields that are an array", body(PING, ID, &[0x90]), ID, "not a map"),
        malformed(
            "fields-array-as-struct",
            "fields by position",
            body(CHECK, ID, &array(&[text("return 1")])),
            ID,
            "not a map",
        ),
        malformed(
            "execute-without-code",
            "neither source nor handler",
            body(EXECUTE, ID, &map(&[("state", bin(&[0x80]))])),
            ID,
            "exactly one",
        ),
        malformed(
            "execute-with-both",
            "source and handler",
            body(EXECUTE, ID, &map(&[source(), ("handler", bin(&[1]))])),
            ID,
            "exactly one",
        ),
        malformed("precompile-without-source", "no source", body(PRECOMPILE, ID, &[0x80]), ID, "`source`"),
        malformed("check-without-source", "no source", body(CHECK, ID, &[0x80]), ID, "`source`"),
        malformed(
            "check-source-nil",
            "nil under a key that is required",
            body(CHECK, ID, &map(&[("source", nil())])),
            ID,
            "`source`",
        ),
        malformed("resume-without-suspension", "no suspension", body(RESUME, ID, &[0x80]), ID, "`suspension`"),
        malformed(
            "resume-with-both",
            "value and error",
            body(RESUME, ID, &map(&[suspension(), ("value", bin(&[0xc0])), failure()])),
            ID,
            "exactly one",
        ),
        malformed(
            "resume-error-without-message",
            "an error needs a message",
            body(RESUME, ID, &map(&[suspension(), ("error", vec![0x80])])),
            ID,
            "`message`",
        ),
        malformed("cancel-nothing", "neither suspension nor request", body(CANCEL, ID, &[0x80]), ID, "exactly one"),
        malformed(
            "cancel-both",
            "suspension and request",
            body(CANCEL, ID, &map(&[suspension(), request()])),
            ID,
            "exactly one",
        ),
        malformed(
            "key-twice",
            "a key twice",
            body(CHECK, ID, &map(&[source(), source()])),
            ID,
            "`source` is there twice",
        ),
        malformed(
            "key-twice-unknown",
            "an unknown key twice",
            body(PING, ID, &map(&[("later", nil()), ("later", nil())])),
            ID,
            "twice",
        ),
        malformed(
            "key-twice-nested",
            "a key twice in a nested map",
            body(EXECUTE, ID, &map(&[source(), ("limits", map(&[("maxEvents", uint(1)), ("maxEvents", uint(2))]))])),
            ID,
            "twice",
        ),
        malformed(
            "key-twice-long-form",
            "a key twice in two forms",
            body(CHECK, ID, &[&[0x82][..], &text("source"), &text("1"), &[0xd9, 6], b"source", &text("1")].concat()),
            ID,
            "twice",
        ),
        malformed(
            "key-number",
            "a key that is a number",
            body(CHECK, ID, &[&[0x81, 0][..], &text("return 1")].concat()),
            ID,
            "not a string",
        ),
        malformed(
            "key-bin",
            "a key that is a bin",
            body(CHECK, ID, &[&[0x81][..], &bin(b"source"), &text("return 1")].concat()),
            ID,
            "not a string",
        ),
    ]
}

/// Values of other types than their key has.
fn types() -> Vec<Vector> {
    let execute = |key: &str, value: Vec<u8>| body(EXECUTE, ID, &map(&[("source", text("return 1")), (key, value)]));
    let wrong = |name: &str, about: &str, key: &str, value: Vec<u8>| {
        malformed(&format!("type-{name}"), about, execute(key, value), ID, &format!("`{key}`"))
    };
    vec![
        malformed(
            "type-source-bin",
            "a bin for a str",
            body(CHECK, ID, &map(&[("source", bin(b"return 1"))])),
            ID,
            "`source`",
        ),
        malformed("type-source-int", "an int for a str", body(CHECK, ID, &map(&[("source", uint(5))])), ID, "`source`"),
        malformed(
            "type-source-array",
            "an array for a str",
            body(CHECK, ID, &map(&[("source", vec![0x90])])),
            ID,
            "`source`",
        ),
        wrong("state-text", "a str for a bin", "state", text("{}")),
        wrong("state-map", "the state itself instead of a bin that holds it", "state", vec![0x80]),
        wrong("args-ints", "an array of ints for a bin", "args", array(&[uint(1), uint(2)])),
        wrong("capabilities-text", "a str for an array", "capabilities", text("crypto:random")),
        wrong("capabilities-ints", "ints for strs", "capabilities", array(&[uint(1)])),
        wrong("capabilities-bins", "bins for strs", "capabilities", array(&[bin(b"crypto:random")])),
        wrong("extensions-array", "an array for a map", "extensions", array(&[text("http")])),
        wrong("extensions-text", "a str for an array of methods", "extensions", map(&[("http", text("get"))])),
        wrong("timeout-text", "a str for an int", "timeoutMs", text("5")),
        wrong("timeout-negative", "a negative int", "timeoutMs", vec![0xff]),
        wrong("timeout-float", "a float for an int", "timeoutMs", vec![0xcb, 0x40, 0x14, 0, 0, 0, 0, 0, 0]),
        wrong("limits-array", "limits by position", "limits", array(&[uint(1)])),
        wrong("limits-value", "a limit that is a str", "limits", map(&[("maxEvents", text("1"))])),
        wrong("strict-int", "an int for a bool", "strictCapabilities", uint(1)),
        wrong("seed-negative", "a negative seed", "seed", vec![0xd0, 0x80]),
        malformed(
            "type-request-text",
            "a str for an id",
            body(CANCEL, ID, &map(&[("request", text("3"))])),
            ID,
            "`request`",
        ),
        malformed(
            "type-request-2-32",
            "an id beyond u32",
            body(CANCEL, ID, &map(&[("request", uint(1 << 32))])),
            ID,
            "`request`",
        ),
        malformed(
            "type-error-text",
            "a str for an error",
            body(RESUME, ID, &map(&[("suspension", text("x")), ("error", text("no"))])),
            ID,
            "`error`",
        ),
        malformed(
            "type-error-array",
            "an error by position",
            body(RESUME, ID, &map(&[("suspension", text("x")), ("error", array(&[text("no")]))])),
            ID,
            "`error`",
        ),
    ]
}

/// Depth, number, UTF-8, truncation within the fields.
fn rules() -> Vec<Vector> {
    let under = |value: Vec<u8>| body(PING, ID, &map(&[("later", value)]));
    // no ping is that large
    let under_work = |value: Vec<u8>| body(CHECK, ID, &map(&[("later", value)]));
    let many = [vec![0xdd, 0, 1, 0, 0], vec![0xc0; 65_536]].concat();
    let bad_text = |bytes: &[u8]| [&[0xa0 | bytes.len() as u8][..], bytes].concat();
    let check = |source: Vec<u8>| body(CHECK, ID, &map(&[("source", source)]));
    vec![
        malformed("depth-17", "17 levels of control values", under(nested_arrays(16)), ID, "16 levels"),
        malformed(
            "depth-17-empty",
            "17 levels, the innermost empty",
            under([vec![0x91; 15], vec![0x90]].concat()),
            ID,
            "16 levels",
        ),
        malformed("depth-64", "64 levels", under(nested_arrays(63)), ID, "16 levels"),
        malformed("depth-100000", "100,000 levels", under_work(nested_arrays(99_999)), ID, "16 levels"),
        malformed(
            "depth-maps",
            "100 levels of maps",
            body(PING, ID, &[[0x81, 0xa1, b'k'].repeat(99), vec![0x80]].concat()),
            ID,
            "16 levels",
        ),
        malformed("too-many-values", "65,536 values in one array", under_work(many), ID, "65536"),
        malformed(
            "claims-2-32-keys",
            "a map that claims 2^32-1 entries",
            body(PING, ID, &[0xdf, 0xff, 0xff, 0xff, 0xff]),
            ID,
            "ends within",
        ),
        malformed(
            "claims-2-32-values",
            "an array that claims 2^32-1 values",
            under(vec![0xdd, 0xff, 0xff, 0xff, 0xff]),
            ID,
            "ends within",
        ),
        malformed(
            "claims-2-32-bytes",
            "a bin that claims 2^32-1 bytes",
            under(vec![0xc6, 0xff, 0xff, 0xff, 0xff]),
            ID,
            "ends within",
        ),
        malformed("str-truncated", "a str that goes on behind the body", check(vec![0xa5, b'a']), ID, "ends within"),
        malformed("bin-truncated", "a bin that goes on behind the body", under(vec![0xc4, 5, 1]), ID, "ends within"),
        malformed("value-missing", "a key without a value", body(PING, ID, &[0x81, 0xa1, b'k']), ID, "ends within"),
        malformed("never-used", "the marker that MessagePack never uses", under(vec![0xc1]), ID, "marker"),
        malformed("ext-unknown", "an extension type that is no timestamp", under(vec![0xd4, 0x05, 0]), ID, "extension"),
        malformed("utf8-lone-continuation", "a continuation byte alone", check(bad_text(&[0x80])), ID, "UTF-8"),
        malformed("utf8-overlong", "an overlong form", check(bad_text(&[0xc0, 0xaf])), ID, "UTF-8"),
        malformed("utf8-surrogate", "a surrogate", check(bad_text(&[0xed, 0xa0, 0x80])), ID, "UTF-8"),
        malformed(
            "utf8-beyond",
            "a character beyond U+10FFFF",
            check(bad_text(&[0xf4, 0x90, 0x80, 0x80])),
            ID,
            "UTF-8",
        ),
        malformed("utf8-cut", "a character cut in two", check(bad_text(&[b'a', 0xe2, 0x82])), ID, "UTF-8"),
        malformed("utf8-in-key", "a key that is not UTF-8", body(PING, ID, &[0x81, 0xa1, 0xff, 0xc0]), ID, "UTF-8"),
        malformed("utf8-unknown-key", "a str under an unknown key", under(bad_text(&[0xff])), ID, "UTF-8"),
    ]
}

/// Well-formed requests with values that make no sense: the connection goes on.
fn values() -> Vec<Vector> {
    let execute = |key: &str, value: Vec<u8>| body(EXECUTE, ID, &map(&[("source", text("return 1")), (key, value)]));
    let invalid = |name: &str, about: &str, key: &str, value: Vec<u8>, contains: &str| {
        let meaning = rejected(about, "INVALID_ARGUMENT", ID, false, contains);
        Vector::new(format!("rejection-value-{name}"), frame(&execute(key, value)), meaning)
    };
    let unsupported = |name: &str, about: &str, key: &str, value: Vec<u8>| {
        let meaning = rejected(about, "SERIALIZATION_ERROR", ID, false, key);
        Vector::new(format!("rejection-value-{name}"), frame(&execute(key, value)), meaning)
    };
    let token = |name: &str, about: &str, token: &str| {
        invalid(
            &format!("capability-{name}"),
            about,
            "capabilities",
            array(&[text("crypto:random"), text(token)]),
            token,
        )
    };
    let suspension = |name: &str, about: &str, id: &str| {
        let body = body(RESUME, ID, &map(&[("suspension", text(id))]));
        let meaning = rejected(about, "SUSPENSION_ERROR", ID, false, "");
        Vector::new(format!("rejection-value-suspension-{name}"), frame(&body), meaning)
    };
    vec![
        token("unknown", "an unknown capability is named", "fs:read:/etc"),
        token("without-name", "a prefix alone", "state:read:"),
        token("case", "tokens are compared exactly", "State:read:k"),
        token("partial-wildcard", "a wildcard is the whole name or none", "ext:http.*"),
        invalid(
            "capability-long",
            "a token of 1,025 bytes",
            "capabilities",
            array(&[text(&format!("state:read:{}", "k".repeat(1014)))]),
            "1025",
        ),
        invalid("panel-id-long", "a panelId of 257 bytes", "panelId", text(&"p".repeat(257)), "panelId"),
        invalid(
            "handler-name-long",
            "a handlerName of 257 bytes",
            "handlerName",
            text(&"h".repeat(257)),
            "handlerName",
        ),
        invalid(
            "limit-unknown",
            "a limit that a call cannot set",
            "limits",
            map(&[("maxFrameBytes", uint(1))]),
            "maxFrameBytes",
        ),
        invalid("state-array", "a state that is no map", "state", bin(&[0x90]), "state"),
        invalid("state-truncated", "a state that ends within a value", "state", bin(&[0x81, 0xa1, b'k']), "state"),
        invalid("state-empty", "a bin without a value", "state", bin(&[]), "state"),
        invalid("state-number-key", "a state with a number as key", "state", bin(&[0x81, 1, 1]), "state"),
        invalid("args-two-values", "two values in one payload", "args", bin(&[0xc0, 0xc0]), "args"),
        invalid("args-deep", "a payload of 65 levels", "args", bin(&nested_arrays(65)), "args"),
        invalid("scope-marker", "a payload with the marker that is never used", "scope", bin(&[0xc1]), "scope"),
        unsupported("args-ext", "an extension type that is no timestamp", "args", bin(&[0xd4, 0x05, 0])),
        unsupported("state-ext", "the same within the state", "state", bin(&[0x81, 0xa1, b'k', 0xd4, 0x05, 0])),
        suspension("unknown", "an id that there is not", "00112233445566778899aabbccddeeff"),
        suspension("short", "a text that is no id", "00"),
        suspension("empty", "an empty id", ""),
        suspension("upper-case", "upper-case digits", "00112233445566778899AABBCCDDEEFF"),
    ]
}

fn hello(magic: &str, min: u64, max: u64, client: &str) -> Vec<u8> {
    map(&[("magic", text(magic)), ("min", uint(min)), ("max", uint(max)), ("client", text(client))])
}

fn malformed(name: &str, about: &str, body: Vec<u8>, id: u32, contains: &str) -> Vector {
    Vector::new(format!("rejection-{name}"), frame(&body), rejected(about, "PROTOCOL_ERROR", id, true, contains))
}

fn goes_on(name: &str, about: &str, body: Vec<u8>, contains: &str) -> Vector {
    Vector::new(format!("rejection-{name}"), frame(&body), rejected(about, "PROTOCOL_ERROR", ID, false, contains))
}
