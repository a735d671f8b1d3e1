//! Many executions in one request.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use nexus_client::{
    CallError, CancelToken, Client, Context, Error, ErrorCode, Extensions, Payload, Resolution, SpawnOptions,
};
use serde::{Serialize, Serializer};
use serde_json::json;
use support::{options, watched};

fn spawn() -> Client {
    Client::spawn(options()).wait().unwrap()
}

/// A context with what cannot be encoded.
fn faulty() -> Context {
    struct Faulty;
    impl Serialize for Faulty {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("it is faulty"))
        }
    }
    Context::new().args(&Faulty)
}

#[test]
fn results_come_in_the_order_of_the_contexts_each_for_itself() {
    watched(|| {
        let client = spawn();
        assert!(client.execute_many("return 1", []).wait().unwrap().is_empty());
        let contexts = (0..2_500).map(|n| Context::new().args(&n));
        let results = client.execute_many("return $args * 2", contexts).wait().unwrap();
        let values: Vec<u32> = results.into_iter().map(|result| result.unwrap().value().unwrap()).collect();
        assert_eq!(values, (0..2_500).map(|n| n * 2).collect::<Vec<_>>());
        let source = "$log($args); if ($args === 1) throw new Error('one'); globalThis.left = 1; return typeof left";
        let results = client.execute_many(source, (0..3).map(|n| Context::new().args(&n))).wait().unwrap();
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
        let results = client.execute_many_of(items).wait().unwrap();
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
        let running = client.execute_many(source, vec![context; 1_000]);
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
        let call = client.execute_many("for (;;);", [Context::new(), Context::new()]).cancel_on(&token);
        token.cancel();
        assert!(call.wait().is_err());
        drop(client.execute_many("for (;;);", [Context::new(), Context::new()]));
        while client.executions().wait().unwrap().1 > 0 {}
        let results = client.execute_many("return $args", [Context::new().args(&f64::NAN), faulty()]).wait().unwrap();
        assert!(results[0].is_ok() && matches!(results[1], Err(Error::Payload(_))), "{results:?}");
    })
}

#[test]
fn contexts_that_call_extensions_go_on_within_their_places_and_results_keep_their_order() {
    const COUNT: u32 = 130;
    watched(|| {
        for most in [3, 1_000] {
            let client = Client::spawn(places(most)).wait().unwrap();
            let extensions = Extensions::new().async_method("a", "twice", |args| async move {
                let n: u32 = args.get(0)?;
                Ok(2 * n)
            });
            let contexts = (0..COUNT).map(|n| Context::new().args(&n));
            let code = "return $args % 3 === 0 ? $args : await $ext.a.twice(await $ext.a.twice($args))";
            let results = client.run_many(code, contexts).extensions(extensions).wait().unwrap();
            let values: Vec<u32> = results.into_iter().map(|result| result.unwrap().value().unwrap()).collect();
            assert_eq!(values, (0..COUNT).map(|n| if n % 3 == 0 { n } else { 4 * n }).collect::<Vec<_>>());
        }
    })
}

fn places(most: u32) -> SpawnOptions {
    options().max_suspended(most.into())
}

#[test]
fn what_calls_goes_on_while_those_behind_it_run_and_a_cancelled_token_ends_all() {
    watched(|| {
        let client = Client::spawn(options().timeout_ms(0)).wait().unwrap();
        let token = CancelToken::new();
        let called = token.clone();
        let extensions = Extensions::new().method("a", "b", move |_| {
            called.cancel();
            Ok(1)
        });
        // nothing but the extension of the first ends the second
        let items = ["return await $ext.a.b()", "for (;;);"].map(|code| (code, Context::new()));
        let ended = client.run_many_of(items).extensions(extensions).cancel(&token).wait();
        assert!(matches!(ended, Err(Error::Cancelled)));
        assert!(matches!(client.run_many("1", [Context::new()]).cancel(&token).wait(), Err(Error::Cancelled)));
        while client.executions().wait().unwrap().1 > 0 {}
    })
}

#[test]
fn each_has_what_a_run_has_its_grants_its_error_and_what_an_extension_is_told() {
    watched(|| {
        let client = spawn();
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let noted = Arc::clone(&seen);
        let extensions = Extensions::new().method("a", "fail", move |args| {
            let call = args.call();
            let told = [call.handler_name(), call.label("job")].map(|it| it.unwrap_or("-").to_owned());
            noted.lock().unwrap().push(told.join(" "));
            Err::<u32, _>(CallError::new("a secret"))
        });
        let contexts = [
            Context::new().handler_name("first"),
            Context::new().grants(Vec::<String>::new()),
            Context::new().grant("ext:a").args(&1),
            faulty(),
        ];
        let code = "$log('so far'); if ($args) return $args; return await $ext.a.fail()";
        let many = client.run_many(code, contexts).extensions(extensions).label("job", "j");
        let results = many.on_extension_error(|_, _| CallError::new("it failed")).wait().unwrap();
        let [failed, denied, ran, faulty] = <[_; 4]>::try_from(results).unwrap();
        let failed = failed.unwrap_err();
        assert!(failed.to_string().contains("it failed"), "{failed}");
        let run = failed.as_run().unwrap();
        assert_eq!((run.segments().len(), run.logs().unwrap().len()), (2, 1));
        assert!(run.extension_error().unwrap().to_string().contains("a secret"));
        let denied = denied.unwrap_err();
        assert_eq!((denied.code(), denied.as_run().unwrap().logs().unwrap().len()), (ErrorCode::PermissionDenied, 1));
        let ran = ran.unwrap();
        assert_eq!((ran.value::<u32>().unwrap(), ran.segments[0].logs().unwrap().len()), (1, 1));
        assert!(matches!(faulty, Err(Error::Payload(_))));
        assert_eq!(*seen.lock().unwrap(), ["first j"]);
    })
}

#[test]
fn handlers_that_the_sidecar_has_forgotten_are_compiled_again_and_a_dropped_call_leaves_nothing() {
    watched(|| {
        let compiled = spawn().precompile("return $args + await $ext.a.one()").wait().unwrap();
        let client = Client::spawn(places(4)).wait().unwrap();
        let one = Extensions::new().method("a", "one", |_| Ok(1));
        let contexts = || (0..20).map(|n| Context::new().args(&n));
        let results = client.run_many(&compiled, contexts()).extensions(one.clone()).wait().unwrap();
        let values: Vec<u32> = results.into_iter().map(|result| result.unwrap().value().unwrap()).collect();
        assert_eq!(values, (1..21).collect::<Vec<_>>());
        let begun = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&begun);
        let stuck = Extensions::new().async_method("a", "one", move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<Result<u32, CallError>>()
        });
        let token = CancelToken::new();
        let stopped = token.clone();
        let call = client.run_many(&compiled, contexts()).extensions(stuck).cancel(&token).start();
        let ender = std::thread::spawn(move || {
            while begun.load(Ordering::Relaxed) < 4 {
                std::thread::yield_now();
            }
            stopped.cancel();
        });
        assert!(matches!(call.wait(), Err(Error::Cancelled)));
        ender.join().unwrap();
        while client.executions().wait().unwrap().1 > 0 {}
        assert_eq!(client.run_many(&compiled, contexts()).extensions(one).wait().unwrap().len(), 20);
    })
}
