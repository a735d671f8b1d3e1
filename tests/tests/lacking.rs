//! What the sidecar lacks for a while, descriptors above all: nobody is hung, nothing spins, everybody is told, and it comes back.

use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use nexus_protocol::ErrorCode;
use nexus_tests::leaks::{cpu_ticks, of_guests, settled_counts};
use nexus_tests::process::write_plan;
use nexus_tests::temp::TempDir;
use nexus_tests::{Answer, Client, LeakProbe, Options, Reply, Run, SOON, Sidecar, Watchdog, eventually};

/// The soft limit of the process that has the connections, while it runs.
fn limit(sidecar: &Sidecar, descriptors: usize) {
    let limit = format!("--nofile={descriptors}:");
    let pid = of_guests(sidecar.pid()).to_string();
    let done = Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap();
    assert!(done.success());
}

const PARKED: &str = "nexus_suspensions{state=\"parked\"}";

fn metric(client: &mut Client, series: &str) -> f64 {
    let text = client.metrics();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{series}: {text}")).parse().unwrap()
}

#[test]
fn whoever_is_connected_is_served_and_others_when_there_is_room_again() {
    let _w = Watchdog::seconds(150);
    let sidecar = Options::new().flag("max-instances", 2).listen();
    let mut first = sidecar.connect();
    first.still_works();
    let before = settled_counts(sidecar.pid());
    for round in 0..3 {
        limit(&sidecar, LeakProbe::of_process(of_guests(sidecar.pid())).fds + 3);
        let mut crowd: Vec<UnixStream> = (0..40).map(|_| UnixStream::connect(sidecar.path()).unwrap()).collect();
        eventually("there is none left", SOON, || sidecar.stderr().matches("a connection is refused").count() > round);
        // the queue is empty before long, and the table of descriptors full: an error for nobody
        let (started, spent) = (Instant::now(), cpu_ticks(sidecar.pid()));
        while started.elapsed() < Duration::from_secs(3) {
            first.still_works();
            std::thread::sleep(Duration::from_millis(100));
        }
        let spent = cpu_ticks(sidecar.pid()) - spent;
        assert!(spent < 100, "{spent} hundredths of a second of 300");
        // those that were taken and those that were not
        let mut told = 0;
        while let Some(stream) = crowd.pop() {
            stream.set_nonblocking(true).unwrap();
            let mut byte = [0; 1];
            if matches!(std::io::Read::read(&mut &stream, &mut byte), Ok(1)) {
                stream.set_nonblocking(false).unwrap();
                told += 1;
            }
        }
        assert!(told > 0, "nobody was told why");
        limit(&sidecar, 4096);
        eventually("others are taken again", SOON, || {
            UnixStream::connect(sidecar.path()).is_ok_and(|stream| {
                let mut client = Client::over(stream);
                matches!(client.hello(), Answer::Hello { .. })
            })
        });
        sidecar.connect().still_works();
        assert_eq!(settled_counts(sidecar.pid()), before, "descriptors, threads");
    }
}

#[test]
fn who_finds_no_descriptor_is_told_that_it_is_overloaded() {
    let _w = Watchdog::seconds(150);
    let dir = TempDir::new();
    let plan = dir.join("plan");
    write_plan(&plan, "");
    let sidecar = Options::new().faults(&format!("file={}", plan.display())).listen();
    let mut first = sidecar.connect();
    write_plan(&plan, "accept:error=24@1");
    let mut client = Client::over(UnixStream::connect(sidecar.path()).unwrap());
    let Some(Reply { id: 0, answer: Answer::Error(error) }) = client.next_reply() else { panic!("it is told") };
    assert!(error.code == ErrorCode::Overloaded && error.retryable, "{error:?}");
    assert!(client.is_closed());
    first.still_works();
    sidecar.connect().still_works();
}

#[test]
fn executions_are_parked_while_there_is_no_descriptor_left() {
    let _w = Watchdog::seconds(150);
    let sidecar = Options::new().flag("max-instances", 2).listen();
    let mut client = sidecar.connect();
    // those that are open stay open
    limit(&sidecar, 3);
    for _ in 0..5 {
        client.run_suspended(Run::source("return await $ext.a.b()").grant(&["ext:*"]));
    }
    eventually("all are parked", SOON, || metric(&mut client, PARKED) == 5.0);
}

#[test]
fn parking_that_lacked_something_comes_back() {
    let _w = Watchdog::seconds(150);
    for lacking in ["page-map:error=24", "pages:error=12", "pages:error=23"] {
        let dir = TempDir::new();
        let plan = dir.join("plan");
        write_plan(&plan, lacking);
        let options = Options::new().faults(&format!("file={}", plan.display())).flag("max-instances", 2);
        // a sealed process has opened it, or does not start
        let options = if lacking.starts_with("page-map") { options.flag("isolation", "none") } else { options };
        let sidecar = options.listen();
        let mut client = sidecar.connect();
        for _ in 0..5 {
            client.run_suspended(Run::source("return await $ext.a.b()").grant(&["ext:*"]));
        }
        eventually("it is tried", SOON, || sidecar.stderr().contains("keeps its instance for now"));
        assert_eq!(metric(&mut client, PARKED), 0.0);
        write_plan(&plan, "");
        eventually("all are parked", SOON, || metric(&mut client, PARKED) == 5.0);
    }
}

#[test]
fn where_parking_is_not_possible_it_is_not_tried_again() {
    let _w = Watchdog::seconds(150);
    let sidecar = Options::new().faults("pages:error=1").flag("max-instances", 2).listen();
    let mut client = sidecar.connect();
    for n in 0..5 {
        let call = client.run_suspended(Run::source("return await $ext.a.b()").grant(&["ext:*"]));
        eventually("it is tried once", SOON, || sidecar.stderr().contains("from now on"));
        assert_eq!(client.resume(&call.call().id, &serde_json::json!(n)).value(), n);
    }
    assert_eq!(sidecar.stderr().matches("pages does").count(), 1);
}
