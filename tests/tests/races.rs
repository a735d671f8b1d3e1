//! A suspension has one winner, however many ask for it at once and whoever they are. `NEXUS_TRIALS=n`: so many races.

use std::sync::Barrier;

use nexus_protocol::ErrorCode;
use nexus_protocol::message::Status;
use nexus_tests::{Client, Options, Rng, Run, SOON, Segment, Watchdog, eventually, trials};
use serde_json::json;

fn suspended(client: &mut Client, n: usize) -> String {
    let segment = client.run(Run::source("return [$args, await $ext.a.b()]").args(&json!(n)).grant(&["ext:*"]));
    segment.call().id.clone()
}

/// Whether it won; a loser has to look like every other.
fn judge(segment: &Segment, n: usize) -> bool {
    if segment.status == Status::Success {
        assert_eq!(segment.value()[0], n, "another execution was resumed");
        return true;
    }
    assert_eq!(segment.code(), ErrorCode::SuspensionError, "{segment:?}");
    false
}

// shows P-one-resume
#[test]
fn of_resumes_that_race_on_their_connection_exactly_one_wins() {
    let races = trials(1000);
    let _w = Watchdog::seconds(60 + races as u64 / 20);
    let sidecar = Options::new().patient().flag("max-instances", 4).listen();
    let mut client = sidecar.connect();
    for n in 0..races {
        let id = suspended(&mut client, n);
        let asked: Vec<u32> = (0..3).map(|who| client.start_resume(&id, &json!(who))).collect();
        let won = asked.into_iter().filter(|asked| judge(&client.segment(*asked), n)).count();
        assert_eq!(won, 1, "race {n}");
    }
    assert_eq!(client.stats().suspended_instances, 0);
}

// shows P-one-resume
#[test]
fn a_stranger_never_wins_against_the_owner() {
    let races = trials(1000);
    let _w = Watchdog::seconds(60 + races as u64 / 20);
    let options = Options::new().patient().flag("max-instances", 4);
    let sidecar = options.flag("max-suspended", races).listen();
    let mut owner = sidecar.connect();
    let ids: Vec<String> = (0..races).map(|n| suspended(&mut owner, n)).collect();
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stranger = sidecar.connect();
            start.wait();
            for (n, id) in ids.iter().enumerate() {
                assert!(!judge(&stranger.resume(id, &json!("stolen")), n), "stolen: {n}");
                assert!(!stranger.cancel_suspension(id));
            }
        });
        start.wait();
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(owner.resume(id, &json!("mine")).value(), json!([n, "mine"]));
        }
    });
    eventually("nothing is held", SOON, || owner.stats().suspended_instances == 0);
}

#[test]
fn guesses_hit_nothing() {
    let guesses = trials(1000) * 100;
    let _w = Watchdog::seconds(60 + guesses as u64 / 500);
    let sidecar = Options::new().patient().flag("max-instances", 4).listen();
    let mut owner = sidecar.connect();
    let ids: Vec<String> = (0..100).map(|n| suspended(&mut owner, n)).collect();
    let (mut stranger, mut rng) = (sidecar.connect(), Rng::new(0x9e55));
    let mut left = guesses;
    while left > 0 {
        let batch = left.min(64);
        let asked: Vec<u32> = (0..batch)
            .map(|_| {
                let mut guess = format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64());
                // some are nearly right
                if rng.below(4) == 0 {
                    guess.replace_range(..28, &rng.pick(&ids)[..28]);
                }
                stranger.start_resume(&guess, &json!(1))
            })
            .collect();
        for asked in asked {
            assert_eq!(stranger.segment(asked).code(), ErrorCode::SuspensionError);
        }
        left -= batch;
    }
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(owner.resume(id, &json!("mine")).value(), json!([n, "mine"]));
    }
}
