//! Logs that are told while the handler runs.

use nexus_protocol::ClientMessage;
use nexus_protocol::message::{Execute, Status};
use nexus_tests::run::calling;
use nexus_tests::{Answer, Client, Options, Run, Segment, Watchdog};
use serde_json::json;

/// Has it run with its logs told meanwhile.
fn streamed(client: &mut Client, run: &Run) -> u32 {
    let ClientMessage::Execute(execute) = run.message() else { unreachable!("it is one") };
    client.send(&ClientMessage::Execute(Execute { stream_logs: true, ..execute }))
}

fn messages(logs: &serde_json::Value) -> Vec<String> {
    logs.as_array().unwrap().iter().map(|log| log["message"].as_str().unwrap().to_owned()).collect()
}

/// The parts that come with an id, and the result behind them.
fn told(client: &mut Client, id: u32) -> (Vec<Vec<String>>, Segment) {
    let mut parts = Vec::new();
    loop {
        match client.wait(id) {
            Answer::Logs(logs) => parts.push(messages(&logs)),
            Answer::Result(segment) => return (parts, segment),
            other => panic!("{other:?}"),
        }
    }
}

// shows P-logs-once
#[test]
fn records_are_told_while_the_handler_runs_each_once_and_in_order_in_every_segment() {
    let _w = Watchdog::seconds(120);
    let (_sidecar, mut client) = Options::new().patient().flag("timeout-ms", 60_000).child();
    // until it is cancelled it does nothing but run: what comes has come meanwhile
    let id =
        streamed(&mut client, &Run::source("console.log('first'); console.warn('second'); for (;;);").timeout_ms(0));
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let Answer::Logs(logs) = client.wait(id) else { panic!("before the result") };
        heard.extend(messages(&logs));
    }
    assert_eq!(heard, ["first", "second"]);
    assert!(client.cancel_request(id));
    let (parts, end) = told(&mut client, id);
    assert_eq!((parts.len(), messages(&end.logs).len()), (0, 0), "told already");
    // what is not told in a part is in the result, and no number is lost or told twice
    let source = "for (let part = 0; part < 3; part++) {
            for (let i = 0; i < 40; i++) { $log(part * 40 + i); for (let n = 0; n < 2e4; n++) Math.max(n, i) }
            await $ext.a.b()
        }
        $log('last')";
    let (mut heard, mut parts_heard) = (Vec::new(), 0);
    let mut id = streamed(&mut client, &calling(source).timeout_ms(60_000));
    let end = loop {
        let (parts, segment) = told(&mut client, id);
        parts_heard += parts.len();
        heard.extend(parts.into_iter().flatten());
        heard.extend(messages(&segment.logs));
        if segment.status != Status::Suspended {
            break segment;
        }
        id = client.start_resume(&segment.call().id, &json!(null));
    };
    assert_eq!(end.status, Status::Success, "{end:?}");
    let expected: Vec<String> = (0..120).map(|n| n.to_string()).chain(["last".to_owned()]).collect();
    assert_eq!(heard, expected);
    assert!(parts_heard > 3, "in every segment: {parts_heard}");
    client.still_works();
    // who does not ask hears nothing before the result
    let id = client.start(calling("$log('x'); for (let n = 0; n < 3e6; n++) Math.max(n, 1)"));
    let (parts, segment) = told(&mut client, id);
    assert_eq!((parts.len(), messages(&segment.logs)), (0, vec!["x".to_owned()]));
}

// shows P-logs-bounded
#[test]
fn all_of_it_counts_against_the_limit_and_a_client_that_does_not_read_gets_it_later() {
    let _w = Watchdog::seconds(120);
    let (_sidecar, mut client) = Options::new().flag("max-log-bytes", 1000).child();
    let source =
        "for (let i = 0; i < 100; i++) { $log('x'.repeat(100)); for (let n = 0; n < 2e4; n++) Math.max(n, i) }";
    let id = streamed(&mut client, &Run::source(source).timeout_ms(60_000));
    let (parts, end) = told(&mut client, id);
    let all: Vec<String> = parts.into_iter().flatten().chain(messages(&end.logs)).collect();
    assert_eq!(all.iter().filter(|message| message.starts_with('x')).count(), 10, "{all:?}");
    assert!(all.last().unwrap().contains("maxLogBytes is 1000"));
    // 9 MB that nobody reads, and what is logged meanwhile
    let (_sidecar, mut deaf) = Options::new().child();
    let large = deaf.start("return 'x'.repeat(9_000_000)");
    let id =
        streamed(&mut deaf, &calling("await $ext.a.b(); $log('late'); for (let n = 0; n < 3e6; n++) Math.max(n, 1)"));
    let Answer::Result(first) = deaf.wait(id) else { panic!("it is suspended") };
    let resumed = deaf.start_resume(&first.call().id, &json!(null));
    let (parts, end) = told(&mut deaf, resumed);
    let all: Vec<String> = parts.into_iter().flatten().chain(messages(&end.logs)).collect();
    assert_eq!(all, ["late"]);
    assert!(matches!(deaf.wait(large), Answer::Result(_)));
}
