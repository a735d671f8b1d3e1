//! Many executions in one request.

mod support;

use nexus_client::{CancelToken, Client, Context, ErrorCode, Payload, Resolution};
use serde_json::json;
use support::{options, watched};

fn spawn() -> Client {
    Client::spawn(options()).wait().unwrap()
}

#[test]
fn results_come_in_the_order_of_the_contexts_each_for_itself() {
    watched(|| {
        let client = spawn();
        assert!(client.run_many("return 1", []).wait().unwrap().is_empty());
        let contexts = (0..2_500).map(|n| Context::new().args(&n));
        let results = client.run_many("return $args * 2", contexts).wait().unwrap();
        let values: Vec<u32> = results.into_iter().map(|result| result.unwrap().value().unwrap()).collect();
        assert_eq!(values, (0..2_500).map(|n| n * 2).collect::<Vec<_>>());
        let source = "$log($args); if ($args === 1) throw new Error('one'); globalThis.left = 1; return typeof left";
        let results = client.run_many(source, (0..3).map(|n| Context::new().args(&n))).wait().unwrap();
        let segments: Vec<_> = results.into_iter().map(Result::unwrap).collect();
        assert_eq!(segments[1].error.as_ref().unwrap().code, ErrorCode::ExecutionError);
        assert!(segments.iter().all(|segment| segment.logs().unwrap().len() == 1));
        assert_eq!(segments[2].value::<String>().unwrap(), "number");
    })
}

#[test]
fn handlers_of_one_request_may_differ_and_what_calls_is_resumed() {
    watched(|| {
        let client = spawn();
        let compiled = client.precompile("return 'compiled'").wait().unwrap();
        let calling = Context::new().grant("ext:a").args(&5);
        let items = [
            (nexus_client::Handler::from("return [$args, await $ext.a.b()]"), calling),
            ((&compiled).into(), Context::new()),
            ("return $state.x".into(), Context::new().state(&json!({"x": 7})).grant("state:read:x")),
            ("return 1".into(), Context::new().grant("no:such")),
        ];
        let results = client.run_many_of(items).wait().unwrap();
        let [suspended, ran, read, refused] = <[_; 4]>::try_from(results).unwrap().map(Result::unwrap);
        assert_eq!((ran.value::<String>().unwrap(), read.value::<u32>().unwrap()), ("compiled".to_owned(), 7));
        assert_eq!(refused.error.unwrap().code, ErrorCode::InvalidArgument);
        let answer = Resolution::Value(Payload::encode(&6).unwrap());
        let end = client.resume(&suspended.suspension().unwrap().id, answer).wait().unwrap();
        assert_eq!(end.value::<(u32, u32)>().unwrap(), (5, 6));
    })
}

#[test]
fn what_was_told_before_an_end_is_there_and_the_rest_is_told_why() {
    watched(|| {
        let client = spawn();
        let states = [client.create_state(&json!({"n": 0})).wait().unwrap()];
        let source = "$state.n += 1; let n = 0; for (let i = 0; i < 1e5; i++) n += Math.max(i, n); return $state.n";
        let context = Context::new().resident(&states[0]).grants(["state:read:n", "state:write:n"]);
        let running = client.run_many(source, vec![context; 1_000]);
        let n = || states[0].snapshot().wait().unwrap().state.decode::<serde_json::Value>().unwrap()["n"].as_u64();
        while n() < Some(50) {}
        let pid = client.pid();
        let killed = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
        assert!(killed.success());
        let results = running.wait().unwrap();
        let told = results.iter().take_while(|result| result.is_ok()).count();
        assert!(results.len() == 1_000 && told > 0 && told < 1_000, "{told}");
        assert!(results.iter().skip(told).all(|result| result.as_ref().unwrap_err().code() == ErrorCode::SidecarGone));
    })
}

#[test]
fn a_cancelled_or_dropped_call_ends_the_rest() {
    watched(|| {
        let client = spawn();
        let token = CancelToken::new();
        let call = client.run_many("for (;;);", [Context::new(), Context::new()]).cancel_on(&token);
        token.cancel();
        assert!(call.wait().is_err());
        drop(client.run_many("for (;;);", [Context::new(), Context::new()]));
        while client.executions().wait().unwrap().1 > 0 {}
        let mut lost = Context::new();
        lost = lost.args(&f64::NAN);
        assert_eq!(client.run_many("return $args", [lost]).wait().unwrap().len(), 1);
    })
}
