//! Peers that are no sidecar, or one that has gone wrong: the bytes are those of `protocol/golden`, and some of our own.

mod support;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::JoinHandle;

use nexus_client::{Client, Error, ErrorCode, GoneReason, StartError};
use support::{scratch, watched};

fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/golden").join(name).with_extension("hex");
    let text = std::fs::read_to_string(path).unwrap();
    let digits: Vec<u8> = text.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// A frame with an answer to the first request, which has id 1.
fn answer(kind: u8, fields: &[u8]) -> Vec<u8> {
    let body = [&[0x93, 0xcc, kind, 1][..], fields].concat();
    [&(body.len() as u32).to_le_bytes()[..], &body].concat()
}

/// Sends `first` to whoever connects and, after a request has come, `then`; ends the connection if told so.
fn peer(first: Vec<u8>, then: Vec<u8>, ends: bool) -> (std::path::PathBuf, JoinHandle<()>) {
    let path = scratch("hostile").join(format!("{:x}.sock", first.len() * 1_000_003 + then.len()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer);
        let _ = stream.write_all(&first);
        if stream.read(&mut buffer).is_ok_and(|length| length > 0) {
            let _ = stream.write_all(&then);
            if !ends {
                until_end(stream);
            }
        }
    });
    (path, thread)
}

fn until_end(mut stream: UnixStream) {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
}

fn ping(then: Vec<u8>, ends: bool) -> Error {
    let (path, thread) = peer(golden("message-answer-hello"), then, ends);
    let client = Client::connect(path).wait().unwrap();
    let error = client.ping().wait().unwrap_err();
    drop(client);
    thread.join().unwrap();
    error
}

#[test]
fn a_first_frame_that_is_no_hello_is_refused() {
    watched(|| {
        type Case = (Vec<u8>, fn(&StartError) -> bool);
        let cases: [Case; 5] = [
            (golden("message-answer-pong"), |error| matches!(error, StartError::NotHello)),
            (golden("stream-text"), |error| matches!(error, StartError::Frame(_))),
            (golden("stream-length-0"), |error| matches!(error, StartError::Frame(_))),
            (golden("rejection-body-json"), |error| matches!(error, StartError::NotHello)),
            (golden("message-error-of-the-connection"), |error| matches!(error, StartError::Refused(_))),
        ];
        for (bytes, is_expected) in cases {
            let (path, thread) = peer(bytes, Vec::new(), true);
            let error = Client::connect(path).wait().unwrap_err();
            let Error::Start(start) = &error else { panic!("{error:?}") };
            assert!(is_expected(start), "{error:?}");
            assert_eq!(error.code(), ErrorCode::ProtocolError, "{error:?}");
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_version_that_was_not_offered_is_refused() {
    watched(|| {
        let mut hello = golden("message-answer-hello");
        let at = hello.windows(8).position(|bytes| bytes == b"\xa7version").unwrap() + 8;
        hello[at] = 3;
        let (path, thread) = peer(hello, Vec::new(), true);
        let error = Client::connect(path).wait().unwrap_err();
        assert_eq!(error.to_string(), "no common protocol version: this side speaks 2 to 2, the peer 3 to 3");
        thread.join().unwrap();
    });
}

#[test]
fn what_is_no_message_ends_the_connection_for_every_call() {
    watched(|| {
        let error = ping(golden("stream-length-2-32-minus-1"), false);
        assert_eq!(error.code(), ErrorCode::ProtocolError);
        assert!(matches!(&error, Error::Gone(gone) if matches!(gone.reason, GoneReason::Framing(_))), "{error:?}");
        for body in
            [golden("rejection-body-json"), golden("rejection-key-twice"), answer(0x89, &[0xc0]), answer(0x70, &[0x80])]
        {
            let error = ping(body, false);
            assert!(
                matches!(&error, Error::Gone(gone) if matches!(gone.reason, GoneReason::Malformed(_))),
                "{error:?}"
            );
        }
    });
}

#[test]
fn an_error_of_the_connection_is_told_to_every_call() {
    watched(|| {
        let error = ping(golden("message-error-of-the-connection"), true);
        assert_eq!(error.code(), ErrorCode::ProtocolError);
        assert!(error.to_string().contains("no common protocol version"), "{error}");
    });
}

#[test]
fn an_end_within_a_frame_is_the_end() {
    watched(|| {
        let mut half = golden("message-answer-metrics");
        half.truncate(20);
        for bytes in [Vec::new(), half] {
            let error = ping(bytes, true);
            assert_eq!((error.code(), error.retryable()), (ErrorCode::SidecarGone, true));
        }
    });
}

#[test]
fn an_answer_of_another_kind_or_to_nobody_harms_only_its_call() {
    watched(|| {
        // The golden pong answers request 7, which there is not; then the real answer comes.
        let then = [golden("message-answer-pong"), answer(0x84, b"\x81\xa9cancelled\xc3")].concat();
        let error = ping(then, false);
        assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
    });
}

const METRICS: &[u8] = b"\xa7metrics\x88\xaadurationUs\0\xa5cpuUs\0\xa7queueUs\0\xafmemoryUsedBytes\0\xafmemoryPeakBytes\0\xb0instructionCount\0\xa9hostCalls\x80\xa8cacheHit\xc2";

/// A result with regions that nobody has lent, and one whose value is in the message as well.
#[test]
fn regions_that_were_never_lent_fail_their_call_alone() {
    watched(|| {
        let region = b"\x83\xaageneration\x01\xa6offset\0\xa3len\x01";
        let regions = [&b"\xa7regions\x81\xa5value"[..], region].concat();
        let status = b"\xa6status\xa7success\xa3seq\0";
        let alone = [&b"\x84"[..], status, &regions, METRICS].concat();
        let twice = [&b"\x85"[..], status, b"\xa5value\xc4\x01\xc0", &regions, METRICS].concat();
        for fields in [alone, twice] {
            let (path, thread) = peer(golden("message-answer-hello"), answer(0x82, &fields), false);
            let client = Client::connect(path).wait().unwrap();
            let error = client.execute("return 1").wait().unwrap_err();
            assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
            drop(client);
            thread.join().unwrap();
        }
    });
}

#[test]
fn segments_with_a_gap_end_the_run() {
    watched(|| {
        let fields = [&b"\x83\xa6status\xa7success\xa3seq\x01"[..], METRICS].concat();
        let (path, thread) = peer(golden("message-answer-hello"), answer(0x82, &fields), false);
        let client = Client::connect(path).wait().unwrap();
        let error = client.run("return 1").wait().unwrap_err();
        assert_eq!(error.code(), ErrorCode::ProtocolError);
        drop(client);
        thread.join().unwrap();
    });
}

/// `logs` with such a list, for the first request.
fn logs(list: &[u8]) -> Vec<u8> {
    answer(0x93, &[b"\x81\xa4logs\xc4", &[list.len() as u8][..], list].concat())
}

#[test]
fn logs_that_nobody_asked_for_are_passed_over_and_those_that_are_none_end_their_run() {
    watched(|| {
        let pong = [logs(b"\xc1"), logs(&[]), answer(0x89, &[0x80])].concat();
        let (path, thread) = peer(golden("message-answer-hello"), pong, false);
        let client = Client::connect(path).wait().unwrap();
        client.ping().wait().unwrap();
        drop(client);
        thread.join().unwrap();
        for list in [&b"\xc1"[..], b"\x91\xc0", b"\x91\x80", b"\x91\x81\xa5level\xa4info"] {
            let (path, thread) = peer(golden("message-answer-hello"), logs(list), false);
            let client = Client::connect(path).wait().unwrap();
            let heard = client.run("for (;;);").on_log(|log| panic!("{log:?}")).wait();
            assert!(matches!(heard, Err(Error::Payload(_))), "{heard:?}");
            drop(client);
            thread.join().unwrap();
        }
    });
}
