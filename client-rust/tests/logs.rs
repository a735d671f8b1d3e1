//! What a handler logs, while it runs.

mod support;

use std::sync::{Arc, Mutex};

use nexus_client::{CancelToken, Error, ErrorCode, Extensions, Log, Progress};
use support::{client, watched};

/// What was heard, of what was told in another place.
fn heard() -> (Arc<Mutex<Vec<String>>>, impl FnMut(&Log) + Send + 'static) {
    let all = Arc::<Mutex<Vec<String>>>::default();
    let told = Arc::clone(&all);
    (all, move |log| told.lock().unwrap().push(log.message.clone()))
}

#[test]
fn records_come_while_the_handler_runs() {
    watched(|| {
        let client = client();
        let token = CancelToken::new();
        let (all, mut hear) = heard();
        // nothing but a record ends the wait: the handler runs until it is ended for that
        let run = client.run("console.warn('here', 1); for (;;);").cancel(&token).on_log(move |log| {
            hear(log);
            token.cancel();
        });
        let error = run.wait().unwrap_err();
        assert_eq!(error.code(), ErrorCode::Cancelled);
        assert_eq!(*all.lock().unwrap(), ["here 1"]);
        let logs = error.as_run().unwrap().logs().unwrap();
        assert_eq!(logs.iter().map(|log| (&*log.level, &*log.message)).collect::<Vec<_>>(), [("warn", "here 1")]);
    });
}

#[test]
fn a_stream_has_them_while_the_handler_runs_and_ends_it_when_it_is_dropped() {
    watched(|| {
        let client = client();
        let (all, hear) = heard();
        let mut running = client.run("for (let n = 0; ; n++) if (n % 1e5 === 0) $log('at ' + n)").on_log(hear).stream();
        for n in [0, 100_000, 200_000] {
            let piece = running.next_blocking().unwrap().unwrap();
            assert!(matches!(piece, Progress::Log(log) if log.message == format!("at {n}")));
        }
        assert_eq!(all.lock().unwrap()[..2], ["at 0", "at 100000"]);
        drop(running);
        while client.executions().wait().unwrap().1 > 0 {}
    });
}

#[test]
fn each_record_comes_once_in_order_before_its_segment_which_has_it_too() {
    const CALLS: usize = 4;
    watched(|| {
        let client = client();
        let code = "const work = (text) => { $log(text); for (let n = 0; n < 2e4; n++) Math.max(n, 1) };
            await Promise.all([0, 1, 2, 3].map(async (k) => {
                work('a' + k); await $ext.a.b(k); for (let i = 0; i < 10; i++) work('b' + k + i) }));
            return 1";
        let (all, hear) = heard();
        let (counted, seen) = (Arc::clone(&all), Arc::<Mutex<Vec<(usize, usize)>>>::default());
        let noted = Arc::clone(&seen);
        let run = client.run(code).on_log(hear).on_segment(move |segment| {
            noted.lock().unwrap().push((counted.lock().unwrap().len(), segment.logs().unwrap().len()));
        });
        let outcome = run.extensions(Extensions::new().method("a", "b", |args| args.get::<u32>(0)));
        let outcome = outcome.wait().unwrap();
        let logs: Vec<String> =
            outcome.segments.iter().flat_map(|segment| segment.logs().unwrap()).map(|log| log.message).collect();
        assert_eq!(*all.lock().unwrap(), logs);
        assert_eq!(logs.iter().collect::<std::collections::HashSet<_>>().len(), CALLS * 11);
        let mut sum = 0;
        for (before, own) in seen.lock().unwrap().iter() {
            sum += own;
            assert_eq!(*before, sum);
        }
        let quiet = client.run("$log('x')").wait().unwrap();
        assert_eq!(quiet.segments[0].logs().unwrap()[0].message, "x");
    });
}

#[test]
fn a_handler_that_was_compiled_again_is_heard_and_so_is_one_that_fails() {
    watched(|| {
        let client = client();
        let compiled = client.precompile("$log('one'); null.x").wait().unwrap();
        client.shutdown().wait().unwrap();
        let client = support::client();
        let (all, hear) = heard();
        let error = client.run(&compiled).on_log(hear).wait().unwrap_err();
        assert!(matches!(error, Error::Run(_)) && error.code() == ErrorCode::ExecutionError);
        assert_eq!(*all.lock().unwrap(), ["one"]);
    });
}
