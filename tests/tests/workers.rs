//! More than one sealed process: one that stands ready, and one for each connection.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nexus_protocol::limits::{MAX_WORKER_DEATHS, WORKER_DEATHS_WINDOW_MS};
use nexus_protocol::message::{Check, ClientMessage};
use nexus_protocol::{ContextValue, ErrorCode, WireError};
use nexus_tests::client::{Answer, Client, Reply};
use nexus_tests::http::get;
use nexus_tests::leaks::{compiler_of, family, is_alive, settled_counts, workers_of};
use nexus_tests::process::{handlers_on_disk, send_signal};
use nexus_tests::run::many;
use nexus_tests::temp::TempDir;
use nexus_tests::{Options, Run, SOON, Sidecar, Watchdog, eventually};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// A connection, and the process that it has for itself, where no more are made.
fn with_own(sidecar: &Sidecar) -> (Client, u32) {
    let mut client = sidecar.connect();
    client.still_works();
    (client, *workers_of(sidecar.pid()).last().unwrap())
}

/// Why a connection is refused. It is told before it asks.
fn refusal(sidecar: &Sidecar) -> String {
    format!("{:?}", sidecar.connect_silently().next_reply().unwrap())
}

#[test]
fn each_connection_has_a_process_of_its_own_and_loses_no_other_one() {
    let _w = Watchdog::seconds(120);
    let mut sidecar = Options::new().worker_each(4).listen();
    let mut others: Vec<Client> = (0..2).map(|_| sidecar.connect()).collect();
    // more often than would end a sidecar whose connections share a worker
    for round in 0..2 * MAX_WORKER_DEATHS {
        eventually("three are there", SOON, || workers_of(sidecar.pid()).len() == 3);
        let before = workers_of(sidecar.pid());
        let mut client = sidecar.connect();
        client.still_works();
        let id = client.start(Run::source("for (;;);").timeout_ms(0));
        // it has not begun to read it else, and another one would
        eventually("it runs", SOON, || client.stats().active_instances == 1);
        send_signal(before[2], Signal::SIGKILL);
        if let Some(Reply { id: answered, answer }) = client.next_reply() {
            let Answer::Result(segment) = answer else { panic!("round {round}: {answer:?}") };
            assert_eq!((answered, segment.code()), (id, ErrorCode::WorkerLost), "round {round}");
            // it goes on with the one that stood ready, which ends with it
            client.still_works();
            let next = workers_of(sidecar.pid())[2];
            assert_ne!(next, before[2]);
            drop(client);
            eventually("that one is gone", SOON, || !workers_of(sidecar.pid()).contains(&next));
        }
        others.iter_mut().for_each(Client::still_works);
        eventually("the others have theirs", SOON, || workers_of(sidecar.pid()).get(..2) == Some(&before[..2]));
    }
    assert!(sidecar.is_running());
}

#[test]
fn a_process_ends_with_its_connection_and_its_place_is_the_next_ones() {
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().worker_each(1).listen();
    let mut had = Vec::new();
    for _ in 0..10 {
        let (client, own) = with_own(&sidecar);
        assert!(!had.contains(&own), "nobody gets what somebody else has had");
        had.push(own);
        drop(client);
    }
    eventually("they are gone", SOON, || had.iter().all(|pid| !is_alive(*pid)));
}

#[test]
fn as_many_are_served_as_may_be_and_the_next_one_is_told() {
    let _w = Watchdog::seconds(120);
    let dir = TempDir::new();
    let http = dir.join("http.sock");
    let sidecar = Options::new().worker_each(2).flag("http-listen", http.display()).listen();
    let mut clients = vec![sidecar.connect(), sidecar.connect()];
    assert!(get(&http, "/readyz").starts_with("HTTP/1.1 503"), "there is no room");
    let told = refusal(&sidecar);
    assert!(told.contains("Overloaded") && told.contains("maxWorkers is 2"), "{told}");
    clients.iter_mut().for_each(Client::still_works);
    clients.pop();
    let mut next = sidecar.connect();
    next.still_works();
    drop(next);
    eventually("there is room", SOON, || get(&http, "/readyz").starts_with("HTTP/1.1 200"));
}

#[test]
fn all_together_have_no_more_than_one_sidecar_may() {
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().worker_each(3).flag("max-instances", 7).flag("max-suspended", 9).listen();
    let mut clients: Vec<Client> = (0..3).map(|_| sidecar.connect()).collect();
    for client in &mut clients {
        let ids: Vec<u32> = (0..8).map(|_| client.start(Run::source("for (;;);").timeout_ms(2000))).collect();
        eventually("as many run as may", SOON, || client.stats().active_instances == 2);
        ids.iter().for_each(|id| assert!(client.cancel_request(*id)));
        ids.iter().for_each(|id| assert_eq!(client.segment(*id).code(), ErrorCode::Cancelled));
        let suspends = || Run::source("return await $ext.a.b(1)").grant(&["ext:*"]);
        let segments: Vec<_> = (0..4).map(|_| client.run(suspends())).collect();
        let refused = segments.iter().filter(|segment| segment.error.is_some()).count();
        assert_eq!(refused, 1, "three is a third of nine");
    }
    // there are no more of them than instances
    let few = Options::new().worker_each(16).flag("max-instances", 2).listen();
    let _clients = [few.connect(), few.connect()];
    assert!(refusal(&few).contains("maxWorkers is 2"));
}

#[test]
fn all_of_them_end_with_the_sidecar_when_they_are_done() {
    let _w = Watchdog::seconds(120);
    let mut sidecar = Options::new().worker_each(4).listen();
    let mut clients: Vec<Client> = (0..3).map(|_| sidecar.connect()).collect();
    let ids: Vec<u32> =
        clients.iter_mut().map(|client| client.start(Run::source("for (;;);").timeout_ms(1000))).collect();
    for client in &mut clients {
        eventually("it runs", SOON, || client.stats().active_instances == 1);
    }
    let all = family(sidecar.pid());
    sidecar.signal(Signal::SIGTERM);
    for (client, id) in clients.iter_mut().zip(ids) {
        assert_eq!(client.segment(id).code(), ErrorCode::Timeout);
    }
    drop(clients);
    assert_eq!(sidecar.exit_code(SOON), 0, "{}", sidecar.stderr());
    assert!(all.iter().all(|pid| !is_alive(*pid)));
}

#[test]
fn what_is_told_of_them_says_of_which() {
    let _w = Watchdog::seconds(120);
    let dir = TempDir::new();
    let http = dir.join("http.sock");
    let sidecar = Options::new().worker_each(3).flag("http-listen", http.display()).listen();
    let mut clients: Vec<Client> = (0..2).map(|_| sidecar.connect()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        (0..=n).for_each(|_| client.still_works());
    }
    eventually("each is told of", SOON, || {
        let metrics = get(&http, "/metrics");
        let states = ["nexus_workers{state=\"serving\"} 2", "nexus_workers{state=\"spare\"} 1"];
        let own = [0, 1, 2].map(|n| format!("nexus_pool_instances{{worker=\"{n}\",state=\"active\"}}"));
        states.iter().all(|state| metrics.contains(state)) && own.iter().all(|line| metrics.contains(line))
    });
    let healthz = get(&http, "/healthz");
    assert!(healthz.contains("isolation connection: ") && healthz.contains("no new privileges"), "{healthz}");
    // one that stands still is noticed by nobody but its own client
    let stopped = workers_of(sidecar.pid())[0];
    kill(Pid::from_raw(stopped as i32), Signal::SIGSTOP).unwrap();
    assert!(get(&http, "/healthz").starts_with("HTTP/1.1 200"));
    clients[1].still_works();
    sidecar.connect().still_works();
}

#[test]
fn clients_that_come_and_go_leave_nothing_behind() {
    let _w = Watchdog::seconds(240);
    let sidecar = Options::new().worker_each(3).listen();
    let churn = || {
        for _ in 0..5 {
            let mut clients: Vec<Client> = (0..3).map(|_| sidecar.connect()).collect();
            clients.iter_mut().for_each(Client::still_works);
        }
        // and another, so that there is one with a client
        let mut client = sidecar.connect();
        client.still_works();
        eventually("two are left", SOON, || workers_of(sidecar.pid()).len() == 2);
        settled_counts(sidecar.pid())
    };
    let before = churn();
    assert_eq!(churn(), before);
}

#[test]
fn a_worker_that_stands_ready_follows_the_one_that_is_lost() {
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().flag("isolation", "shared").listen();
    sidecar.connect().still_works();
    eventually("two are there", SOON, || workers_of(sidecar.pid()).len() == 2);
    let before = workers_of(sidecar.pid());
    send_signal(before[0], Signal::SIGKILL);
    sidecar.connect().still_works();
    assert_eq!(workers_of(sidecar.pid())[0], before[1]);
    // and one that is lost while it stands ready is nobody's loss
    let mut client = sidecar.connect();
    eventually("another one is there", SOON, || workers_of(sidecar.pid()).len() == 2);
    send_signal(workers_of(sidecar.pid())[1], Signal::SIGKILL);
    client.still_works();
    eventually("and another one", SOON, || workers_of(sidecar.pid()).len() == 2);
    client.still_works();
}

// ---- connections whose worker is lost ----

/// A sidecar of which another worker stands ready, and the one that serves.
fn two_workers(sidecar: &Sidecar) -> u32 {
    eventually("another one stands ready", SOON, || workers_of(sidecar.pid()).len() == 2);
    workers_of(sidecar.pid())[0]
}

// shows P-rest-goes-on
#[test]
fn a_connection_that_is_at_rest_goes_on_when_its_worker_is_lost() {
    let _w = Watchdog::seconds(240);
    for isolation in ["shared", "connection"] {
        let sidecar = Options::new().flag("isolation", isolation).listen();
        let mut client = sidecar.connect();
        let mut silent = (isolation == "shared").then(|| sidecar.connect());
        let state = client.create_state(&json!({}));
        let waits = client.run(Run::source("return await $ext.a.b(1)").grant(&["ext:*"]));
        let suspension = waits.call().id.clone();
        // one after the other, further apart than a loop of deaths is
        for round in 0..3 {
            client.still_works();
            // what is told by others than workers
            client.ping();
            // and what comes in parts
            let runs: Vec<Run> =
                ["return 1", "for (let i = 0; i < 1e6; i++); return 2", "return 3"].map(Run::source).into();
            let asked = client.send(&many(&runs));
            assert_eq!(client.results(asked).0.len(), runs.len());
            assert!(client.metrics().contains("nexus_pool_instances"));
            let _ = client.executions();
            let worker = two_workers(&sidecar);
            // an answer is there a moment before its worker notes that it has left
            settled_counts(sidecar.pid());
            send_signal(worker, Signal::SIGKILL);
            // until then it may take a request along
            eventually("it is gone", SOON, || !is_alive(worker));
            client.still_works();
            silent.iter_mut().for_each(Client::still_works);
            assert!(!workers_of(sidecar.pid()).contains(&worker), "round {round}");
        }
        // what the one that is lost had alone is told to be gone
        assert_eq!(client.resume(&suspension, &Value::from(1)).code(), ErrorCode::SuspensionError);
        let error = client.snapshot_state(&state, None).unwrap_err();
        assert!(error.retryable && format!("{error:?}").contains("unknown-state"), "{error:?}");
        client.still_works();
        assert!(sidecar.stderr().contains("was ended by SIGKILL"));
    }
}

/// What a request is answered with whose worker is lost.
fn assert_lost(error: &WireError, retryable: bool) {
    assert_eq!((error.code, error.retryable), (ErrorCode::WorkerLost, retryable), "{error:?}");
    assert_eq!(error.context["stage"], ContextValue::Text("process".into()));
}

// shows P-lost-is-told
#[test]
fn what_a_lost_worker_was_asked_is_answered_once_and_the_connection_goes_on() {
    let _w = Watchdog::seconds(240);
    for resumes in [true, false] {
        let sidecar = Options::new().flag("isolation", "shared").flag("max-instances", 2).listen();
        let (mut client, mut silent) = (sidecar.connect(), sidecar.connect_silently());
        client.still_works();
        let state = client.create_state(&json!({}));
        let goes_on = Run::source("await $ext.a.b(1); for (;;);").grant(&["ext:*"]).timeout_ms(0);
        let suspension = client.run(goes_on).call().id.clone();
        let worker = two_workers(&sidecar);
        // two are begun, of which one cannot be sent again, and all others wait
        let endless = client.start(Run::source("for (;;);").timeout_ms(0));
        let items = [Run::source("for (;;);").timeout_ms(0), Run::source("return 1")];
        let other = match resumes {
            true => client.start_resume(&suspension, &Value::from(1)),
            false => client.send(&many(&items)),
        };
        eventually("they are begun", SOON, || client.stats().active_instances == 2);
        let waits: Vec<u32> = (0..20).map(|_| client.start("return 2")).collect();
        let listed = client.send(&many(&items));
        let checked = client.send(&ClientMessage::Check(Check { source: "return 3" }));
        // who is answered behind that was read behind it: all that came before is in the books, and its answers have left
        client.ping();
        silent.hello();
        send_signal(worker, Signal::SIGKILL);
        assert_lost(client.segment(endless).error(), true);
        let error = match resumes {
            true => client.segment(other).error().clone(),
            false => client.results(other).1.unwrap(),
        };
        assert_lost(&error, false);
        for id in waits {
            assert_lost(client.segment(id).error(), true);
        }
        assert_lost(&client.results(listed).1.unwrap(), true);
        let Answer::Error(error) = client.wait(checked) else { panic!("nobody can have checked it") };
        assert_lost(&error, true);
        // nothing else is answered, and the connection goes on, with what it had unknown
        client.still_works();
        assert!(client.early_replies().is_empty(), "{:?}", client.early_replies());
        assert!(client.snapshot_state(&state, None).unwrap_err().retryable);
        assert_eq!(client.resume(&suspension, &Value::from(1)).code(), ErrorCode::SuspensionError);
        client.still_works();
    }
}

#[test]
fn a_connection_that_is_amid_something_ends_with_its_worker() {
    let _w = Watchdog::seconds(240);
    type Begin = fn(&mut Client);
    let begun: [(&str, Begin); 2] = [
        ("half a frame", |client| assert!(client.write_raw(&[9, 0, 0]))),
        ("an answer that is not read", |client| {
            for _ in 0..20 {
                client.start("return 'x'.repeat(1000000)");
            }
        }),
    ];
    for (what, begin) in begun {
        let sidecar = Options::new().flag("isolation", "shared").listen();
        let mut client = sidecar.connect();
        client.still_works();
        let mut other = sidecar.connect();
        other.still_works();
        let worker = two_workers(&sidecar);
        begin(&mut client);
        if what == "half a frame" {
            // it was read when others have had their turn behind it
            (0..3).for_each(|_| other.still_works());
        } else {
            // no socket holds the whole of it
            eventually("a part of it has left", SOON, || {
                let mut fds = [PollFd::new(client.stream().as_fd(), PollFlags::POLLIN)];
                poll(&mut fds, PollTimeout::ZERO).unwrap() > 0
            });
        }
        send_signal(worker, Signal::SIGKILL);
        sidecar.connect().still_works();
        // whatever had left before, and then the end
        while client.next_reply().is_some() {}
    }
    // and one that has not said hello
    let sidecar = Options::new().flag("isolation", "shared").listen();
    let mut silent = sidecar.connect_silently();
    sidecar.connect().still_works();
    send_signal(two_workers(&sidecar), Signal::SIGKILL);
    assert!(silent.is_closed());
}

/// So many times a worker is killed while clients have all kinds of requests under way.
const KILLS: u64 = 12;

#[test]
fn whatever_a_worker_was_about_when_it_was_lost_each_request_is_answered_once_or_its_connection_ends() {
    let kills = std::env::var("NEXUS_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let _w = Watchdog::seconds(120 + 3 * kills);
    let sidecar = Options::new().flag("isolation", "shared").listen();
    let over = AtomicBool::new(false);
    let (kept, told, lost) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for own in 0..4_u64 {
            let (sidecar, over, kept, told, lost) = (&sidecar, &over, &kept, &told, &lost);
            scope.spawn(move || {
                let mut n = own << 32;
                while !over.load(Ordering::Acquire) {
                    let Some(mut client) = sidecar.try_connect() else { continue };
                    loop {
                        n += 1;
                        let Some(id) = client.try_start(Run::source("return $args[0]").args(&json!([n]))) else {
                            break;
                        };
                        // the answer is its own, or there is none and nothing follows
                        match client.next_reply() {
                            Some(Reply { id: answered, answer: Answer::Result(segment) }) => {
                                assert_eq!(answered, id);
                                match &segment.error {
                                    None => assert_eq!(segment.value(), json!(n)),
                                    Some(error) => {
                                        assert_lost(error, true);
                                        told.fetch_add(1, Ordering::AcqRel);
                                    }
                                }
                            }
                            Some(other) => panic!("{other:?}"),
                            None => break,
                        }
                        kept.fetch_add(1, Ordering::AcqRel);
                        if over.load(Ordering::Acquire) {
                            return;
                        }
                    }
                    lost.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        for _ in 0..kills {
            let before = kept.load(Ordering::Acquire);
            eventually("they are served", SOON, || kept.load(Ordering::Acquire) > before + 50);
            send_signal(two_workers(&sidecar), Signal::SIGKILL);
            // further apart than a loop of deaths is
            std::thread::sleep(Duration::from_millis(WORKER_DEATHS_WINDOW_MS / (MAX_WORKER_DEATHS as u64 - 2)));
        }
        over.store(true, Ordering::Release);
    });
    let (kept, told, lost) = (kept.into_inner(), told.into_inner(), lost.into_inner());
    println!(
        "{kills} workers killed: {kept} requests answered once, {told} of them with the loss, {lost} connections ended, of {}",
        4 * kills
    );
    assert!(lost <= 4 * kills);
}

// ---- what is kept of handlers ----

#[test]
fn what_is_kept_is_what_a_process_without_clients_has_made() {
    let _w = Watchdog::seconds(120);
    for isolation in ["shared", "connection"] {
        let cache = TempDir::new();
        let options = Options::new().flag("isolation", isolation).flag("cache-dir", cache.join("c").display());
        let sidecar = options.listen();
        let mut client = sidecar.connect();
        client.run("return 1");
        eventually("it is kept", SOON, || handlers_on_disk(&cache.join("c")) == 1);
        let compiler = compiler_of(sidecar.pid()).unwrap();
        let status = std::fs::read_to_string(format!("/proc/{compiler}/status")).unwrap();
        assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "{status}");
        // no file, no client: sources, the supervisor's line, its page, and standard error
        for descriptor in std::fs::read_dir(format!("/proc/{compiler}/fd")).unwrap() {
            let descriptor = descriptor.unwrap();
            let target = std::fs::read_link(descriptor.path()).unwrap().into_os_string().into_string().unwrap();
            let known = ["socket:", "/memfd:nexus-image", "/memfd:nexus-page", "/dev/null"];
            let own = format!("/proc/{compiler}/pagemap");
            let is_error = std::fs::read_link(format!("/proc/{compiler}/fd/2")).unwrap().to_str() == Some(&target);
            assert!(known.iter().any(|start| target.starts_with(start)) || target == own || is_error, "{target}");
        }
        // one that is lost is followed by another, and nobody else notices
        send_signal(compiler, Signal::SIGKILL);
        client.run("return 2");
        client.run("return 3");
        let mut n = 3;
        eventually("another one compiles", SOON, || {
            n += 1;
            client.run(&*format!("return {n}"));
            handlers_on_disk(&cache.join("c")) > 2
        });
        assert_ne!(compiler_of(sidecar.pid()), Some(compiler));
        client.still_works();
    }
}

#[test]
fn a_process_that_compiles_and_stands_still_keeps_nobody_waiting_and_no_sidecar_from_its_end() {
    let _w = Watchdog::seconds(120);
    let cache = TempDir::new();
    let mut sidecar = Options::new().flag("isolation", "shared").flag("cache-dir", cache.join("c").display()).listen();
    let mut client = sidecar.connect();
    client.run("return 1");
    eventually("it is kept", SOON, || handlers_on_disk(&cache.join("c")) == 1);
    let compiler = compiler_of(sidecar.pid()).unwrap();
    kill(Pid::from_raw(compiler as i32), Signal::SIGSTOP).unwrap();
    for n in 0..100 {
        client.run(&*format!("return {n}"));
    }
    sidecar.signal(Signal::SIGTERM);
    assert_eq!(sidecar.exit_code(SOON), 0, "{}", sidecar.stderr());
    assert!(!is_alive(compiler));
}
