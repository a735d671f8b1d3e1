//! Which calls of an execution are outstanding: every segment lists them all, though the sidecar tells each once.

mod support;

use std::collections::BTreeMap;

use nexus_client::{CancelTarget, Client, Context, ErrorCode, Extensions, Payload, Resolution, Segment, Status};
use support::{client, watched};

fn context() -> Context {
    Context::new().grant("ext:a")
}

fn value(n: u32) -> Resolution {
    Resolution::Value(Payload::encode(&n).unwrap())
}

fn start(client: &Client, source: &str) -> Segment {
    let segment = client.execute(source).context(&context()).wait().unwrap();
    assert_eq!(segment.status, Status::Suspended, "{segment:?}");
    segment
}

/// The number that each outstanding call was made with.
fn outstanding(segment: &Segment) -> Vec<u32> {
    segment.suspensions.iter().map(|call| call.args.decode::<(u32,)>().unwrap().0).collect()
}

#[test]
fn every_segment_lists_the_calls_that_are_outstanding_after_it_in_the_order_of_making() {
    watched(|| {
        let client = client();
        let source = "const more = async (i) => (await $ext.a.b(i), await $ext.a.b(i + 10));
            return await Promise.all([1, 2, 3, 4].map(more))";
        let first = start(&client, source);
        let mut segment = first.clone();
        let mut waiting = vec![1, 2, 3, 4];
        for answered in [3, 1, 13, 4, 2, 14, 12, 11] {
            assert_eq!(outstanding(&segment), waiting);
            assert_eq!(segment.suspension().map(|call| call.args.decode::<(u32,)>().unwrap().0), Some(waiting[0]));
            let place = waiting.iter().position(|&n| n == answered).unwrap();
            let id = segment.suspensions[place].id.clone();
            waiting.remove(place);
            if answered < 10 {
                waiting.push(answered + 10);
            }
            segment = client.resume(&id, value(answered)).wait().unwrap();
        }
        assert_eq!(segment.value::<Vec<u32>>().unwrap(), [11, 12, 13, 14]);
        assert!(segment.suspensions.is_empty());
        assert_eq!(outstanding(&first), [1, 2, 3, 4], "a list is of its own segment");
    });
}

#[test]
fn lists_are_right_when_all_are_resumed_at_once_and_waited_for_in_any_order() {
    watched(|| {
        let client = client();
        let source = "return (await Promise.all(Array.from({ length: 60 }, (_, i) => $ext.a.b(i)))).length";
        for round in 0..10 {
            let first = start(&client, source);
            let mut calls: Vec<_> =
                first.suspensions.iter().map(|call| (call.id.clone(), client.resume(&call.id, value(1)))).collect();
            calls.rotate_left(round * 5);
            let mut by_seq = BTreeMap::new();
            for (id, call) in calls.into_iter().rev() {
                let segment = call.wait().unwrap();
                assert!(by_seq.insert(segment.seq, (id, segment)).is_none());
            }
            let mut left: Vec<String> = first.suspensions.iter().map(|call| call.id.clone()).collect();
            for (seq, (answered, segment)) in &by_seq {
                left.retain(|id| id != answered);
                let listed: Vec<_> = segment.suspensions.iter().map(|call| &call.id).collect();
                assert_eq!(listed, left.iter().collect::<Vec<_>>(), "segment {seq}");
            }
            assert_eq!((by_seq.len(), by_seq[&60].1.value::<u32>().unwrap()), (60, 60));
        }
    });
}

#[test]
fn a_value_that_is_refused_leaves_its_call_in_the_list() {
    watched(|| {
        let client = client();
        let source = "return await Promise.all([$ext.a.b(1), $ext.a.b(2)])";
        let first = start(&client, source);
        for bytes in [&b"\x81\xc0\x01"[..], b"", b"\xd4\x05\x00"] {
            let bad = Resolution::Value(Payload::from_bytes(bytes.to_vec()));
            let refused = client.resume(&first.suspensions[0].id, bad).wait().unwrap();
            let code = refused.error.as_ref().unwrap().code;
            assert!(matches!(code, ErrorCode::InvalidArgument | ErrorCode::SerializationError), "{refused:?}");
        }
        let second = client.resume(&first.suspensions[1].id, value(2)).wait().unwrap();
        assert_eq!(outstanding(&second), [1]);
        let last = client.resume(&second.suspension().unwrap().id, value(1)).wait().unwrap();
        assert_eq!(last.value::<Vec<u32>>().unwrap(), [1, 2]);
        let cancelled = start(&client, source);
        assert!(client.cancel(&CancelTarget::Suspension(cancelled.suspensions[1].id.clone())).wait().unwrap());
        let gone = client.resume(&cancelled.suspensions[0].id, value(1)).wait().unwrap();
        assert_eq!(gone.error.unwrap().code, ErrorCode::SuspensionError);
    });
}

#[test]
fn segments_of_a_run_list_what_is_outstanding_too_and_values_that_are_none_fail_in_the_handler() {
    watched(|| {
        let client = client();
        let extensions = Extensions::new()
            .method("a", "b", |args| args.get::<u32>(0))
            .method("a", "bad", |_| Ok(BTreeMap::from([((), 1)])));
        let source = "let failed;
            try { await $ext.a.bad() } catch (e) { failed = e.code }
            const all = await Promise.all(Array.from({ length: 200 }, (_, i) => $ext.a.b(i)));
            return [failed, all.reduce((a, b) => a + b)]";
        let outcome = client.run(source).context(&context()).extensions(extensions).wait().unwrap();
        let (failed, sum) = outcome.value::<(String, u32)>().unwrap();
        assert_eq!((&*failed, sum), ("SERIALIZATION_ERROR", 199 * 100));
        let sizes: Vec<usize> = outcome.segments.iter().map(|segment| segment.suspensions.len()).collect();
        let wanted: Vec<usize> = std::iter::once(1).chain((0..=200).rev()).collect();
        assert_eq!(sizes, wanted);
        let seqs: Vec<u32> = outcome.segments.iter().map(|segment| segment.seq).collect();
        assert_eq!(seqs, (0..seqs.len() as u32).collect::<Vec<_>>());
    });
}

#[test]
fn an_answer_that_is_too_large_for_the_handler_ends_it_and_one_that_is_too_large_for_a_frame_fails_in_it() {
    watched(|| {
        let client = client();
        let extensions = Extensions::new()
            .method("a", "large", |_| Ok("x".repeat(40 << 20)))
            .method("a", "larger", |_| Ok("x".repeat(65 << 20)))
            .method("a", "error", |_| Err::<(), _>(nexus_client::CallError::new("x".repeat(40 << 20))));
        let run = |source: &str| client.run(source).context(&context()).extensions(extensions.clone()).wait();
        for source in [
            "return await $ext.a.large()",
            "await $ext.a.error()",
            "await Promise.all([$ext.a.large(), $ext.a.large()])",
        ] {
            let error = run(source).unwrap_err();
            assert_eq!((error.code(), error.retryable()), (ErrorCode::MemoryLimit, false), "{source}");
        }
        let caught = run("try { await $ext.a.larger() } catch (e) { return e.code }").unwrap();
        assert_eq!(caught.value::<String>().unwrap(), "SERIALIZATION_ERROR");
        let first = start(&client, "return await Promise.all([$ext.a.b(1), $ext.a.b(2)])");
        let large = Resolution::Value(Payload::encode(&"x".repeat(40 << 20)).unwrap());
        let ended = client.resume(&first.suspensions[0].id, large).wait().unwrap();
        assert_eq!((ended.seq, ended.error.unwrap().code), (1, ErrorCode::MemoryLimit));
    });
}

#[test]
fn the_end_of_a_sidecar_in_the_midst_of_an_execution_is_not_retryable() {
    watched(|| {
        let client = client();
        let pid = client.child_pid().unwrap().to_string();
        let first = start(&client, "await $ext.a.b(1); for (;;);");
        let fresh = client.execute("for (;;);").context(&context()).start();
        let resumed = client.resume(&first.suspensions[0].id, value(1));
        let extensions = Extensions::new().method("a", "end", move |_| {
            assert!(std::process::Command::new("kill").args(["-9", &pid]).status()?.success());
            Ok(())
        });
        let run = client.run("await $ext.a.end()").context(&context()).extensions(extensions).start();
        let ends = [run.wait().unwrap_err(), resumed.wait().unwrap_err(), fresh.wait().unwrap_err()];
        assert_eq!(ends.each_ref().map(|error| error.code()), [ErrorCode::SidecarGone; 3]);
        assert_eq!(ends.each_ref().map(|error| error.retryable()), [false, false, true], "{ends:?}");
    });
}
