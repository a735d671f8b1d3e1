//! Streams: lengths at and beyond their bounds, frames in a row, ends within a frame.

use serde_json::json;

use crate::Vector;
use crate::bytes::{body, frame, map, text};

/// Small, so that the vectors are.
const MAX_FRAME_BYTES: usize = 4096;

pub(crate) fn all() -> Vec<Vector> {
    let ping = frame(&body(0x09, 1, &[0x80]));
    let at_max = frame(&padded_ping(MAX_FRAME_BYTES));
    let over_max = frame(&padded_ping(MAX_FRAME_BYTES + 1));
    let length = |length: u32| length.to_le_bytes().to_vec();
    let with_ping_behind = |length: Vec<u8>| [length, ping.clone()].concat();
    vec![
        stream("nothing", "an empty stream", vec![], &[], "boundary"),
        stream("one-frame", "one frame", ping.clone(), &[4], "boundary"),
        stream("three-frames", "frames in a row", ping.repeat(3), &[4, 4, 4], "boundary"),
        stream(
            "length-1",
            "the shortest frame; its body is no message, which is not the framing's business",
            frame(&[0xc0]),
            &[1],
            "boundary",
        ),
        stream("length-max", "a frame of exactly maxFrameBytes", at_max, &[MAX_FRAME_BYTES], "boundary"),
        stream("length-max-plus-1", "one byte more than maxFrameBytes", over_max, &[], "too-large"),
        stream("length-0", "length 0; what follows is not read", with_ping_behind(length(0)), &[], "empty"),
        stream("length-2-31", "a length that is negative as i32", with_ping_behind(length(1 << 31)), &[], "too-large"),
        stream("length-2-32-minus-1", "the largest length", with_ping_behind(length(u32::MAX)), &[], "too-large"),
        stream(
            "length-big-endian",
            "a big-endian length",
            with_ping_behind(4u32.to_be_bytes().to_vec()),
            &[],
            "too-large",
        ),
        stream(
            "good-then-0",
            "a frame is delivered before the fault behind it",
            [ping.clone(), length(0)].concat(),
            &[4],
            "empty",
        ),
        stream("ends-in-header", "the stream ends within a length", vec![4, 0, 0], &[], "incomplete"),
        stream("ends-behind-header", "the stream ends behind a length", length(4), &[], "incomplete"),
        stream("ends-in-body", "the stream ends within a body", ping[..ping.len() - 1].to_vec(), &[], "incomplete"),
        stream(
            "ends-in-second",
            "the stream ends within the second frame",
            ping.repeat(2)[..12].to_vec(),
            &[4],
            "incomplete",
        ),
        stream("text", "HTTP on the wrong socket", b"GET / HTTP/1.1\r\n\r\n".to_vec(), &[], "too-large"),
    ]
}

fn stream(name: &str, about: &str, bytes: Vec<u8>, frames: &[usize], end: &str) -> Vector {
    let meaning = json!({
        "about": about,
        "sort": "stream",
        "maxFrameBytes": MAX_FRAME_BYTES,
        "frames": frames,
        "end": end,
    });
    Vector::new(format!("stream-{name}"), bytes, meaning)
}

/// A ping whose unknown key fills the body up to `body_bytes`.
fn padded_ping(body_bytes: usize) -> Vec<u8> {
    let empty = body(0x09, 1, &map(&[("padding", text(&"x".repeat(1000)))])).len() - 1000;
    body(0x09, 1, &map(&[("padding", text(&"x".repeat(body_bytes - empty)))]))
}
