//! Sidecars that die: what calls are told, when the next one is started, and what is never sent to it.

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use nexus_client::{
    CancelToken, Client, Context, Error, ErrorCode, Extensions, Payload, Resolution, RestartPolicy, SpawnOptions,
};
use support::{options, scratch, watched, watched_for};

fn kill(client: &Client) {
    let pid = client.child_pid().unwrap().to_string();
    assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
}

fn quick() -> RestartPolicy {
    RestartPolicy::default().max_crashes(1_000_000).max_delay(Duration::from_millis(20))
}

#[test]
fn the_next_call_starts_another_and_compiled_handlers_live_on() {
    watched(|| {
        let client = Client::spawn(options()).wait().unwrap();
        let compiled = client.precompile("return $args * 2").wait().unwrap();
        let first = client.child_pid();
        kill(&client);
        let value = loop {
            match client.execute(&compiled).args(&21).wait() {
                Ok(segment) => break segment.into_result().unwrap().value::<u32>().unwrap(),
                Err(error) => assert_eq!((error.code(), error.retryable()), (ErrorCode::SidecarGone, true)),
            }
        };
        assert_eq!(value, 42);
        assert_ne!(client.child_pid(), first);
    });
}

#[test]
fn a_suspension_of_a_sidecar_that_has_gone_is_never_sent_to_the_next() {
    watched(|| {
        let client = Client::spawn(options().restart(quick())).wait().unwrap();
        let context = Context::new().grant("ext:a");
        let suspended = client.execute("return await $ext.a.b()").context(&context).wait().unwrap();
        kill(&client);
        while client.ping().wait().is_err() {}
        let resolution = Resolution::Value(Payload::nil());
        let error = client.resume(&suspended.suspensions[0].id, resolution).wait().unwrap_err();
        assert_eq!((error.code(), error.retryable()), (ErrorCode::SuspensionError, false));
    });
}

#[test]
fn a_program_that_keeps_dying_is_a_crash_loop_that_says_how_it_ended() {
    watched(|| {
        let folder = scratch("crashing");
        let (alive, program) = (folder.join("alive"), folder.join("sidecar"));
        std::fs::write(&alive, "").unwrap();
        let real = support::sidecar_binary();
        let script = format!(
            "#!/bin/sh\nif [ -e {} ]; then exec {} \"$@\"; fi\necho 'no such luck' >&2\nexit 41\n",
            alive.display(),
            real.display()
        );
        std::fs::write(&program, script).unwrap();
        assert!(Command::new("chmod").arg("755").arg(&program).status().unwrap().success());
        let policy = quick().max_crashes(3).cool_down(Duration::from_secs(4));
        let client = Client::spawn(SpawnOptions::new().binary(&program).restart(policy)).wait().unwrap();
        std::fs::remove_file(&alive).unwrap();
        kill(&client);
        let refused = loop {
            let error = client.ping().wait().unwrap_err();
            assert_eq!((error.code(), error.retryable()), (ErrorCode::SidecarGone, true));
            if let Error::CrashLoop(refused) = error {
                break refused;
            }
        };
        assert_eq!(refused.deaths, 3);
        assert!(refused.retry_after <= Duration::from_secs(4));
        assert!(refused.to_string().contains("41") && refused.to_string().contains("no such luck"), "{refused}");
        std::fs::write(&alive, "").unwrap();
        while let Err(error) = client.ping().wait() {
            assert!(matches!(error, Error::CrashLoop(_)), "{error}");
            std::thread::sleep(Duration::from_millis(10));
        }
    });
}

#[test]
fn a_policy_of_never_leaves_it_gone() {
    watched(|| {
        let client = Client::spawn(options().restart(RestartPolicy::never())).wait().unwrap();
        let pid = client.child_pid();
        kill(&client);
        while client.ping().wait().is_ok() {}
        for _ in 0..3 {
            assert_eq!(client.ping().wait().unwrap_err().code(), ErrorCode::SidecarGone);
        }
        assert_eq!(client.child_pid(), pid);
    });
}

#[test]
fn a_token_cancels_a_run_that_waits_for_a_start_and_a_dropped_client_starts_nothing() {
    // on a busy machine a sidecar may live too long for the next start to wait
    watched(|| assert!((0..10).any(|_| is_told_of_the_drop()), "the next start never waits"));
}

/// Whether a call that waits for a start, which never comes, is told so.
fn is_told_of_the_drop() -> bool {
    let slow = RestartPolicy::default().max_crashes(1_000_000);
    let client = Client::spawn(options().restart(slow)).wait().unwrap();
    // Each dies young, so the waits double.
    let mut last = client.child_pid();
    for _ in 0..3 {
        kill(&client);
        while client.child_pid() == last {
            let _ = client.ping().wait();
        }
        last = client.child_pid();
    }
    // only who was under way hears of the end without beginning the next start
    let endless = client.execute("for (;;);").start();
    kill(&client);
    assert_eq!(endless.wait().unwrap_err().code(), ErrorCode::SidecarGone);
    let token = CancelToken::new();
    let run = client.run("return 1").cancel(&token).start();
    token.cancel();
    assert_eq!(run.wait().unwrap_err().code(), ErrorCode::Cancelled);
    let pending = client.ping();
    drop(client);
    let told = pending.wait();
    assert!(told.as_ref().err().is_none_or(|error| error.code() == ErrorCode::SidecarGone), "{told:?}");
    told.is_err()
}

#[test]
fn kill_storm_leaves_no_call_process_or_descriptor() {
    // so many instead of the few of the gate
    let cycles = std::env::var("NEXUS_KILLS").map_or(50, |n| n.parse().unwrap());
    watched_for(Duration::from_secs(60 + cycles), move || {
        let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let client = Client::spawn(options().restart(quick())).wait().unwrap();
        let compiled = client.precompile("return $args").wait().unwrap();
        let (mut gone, mut answered) = (0, 0);
        let mut slowest = Duration::ZERO;
        let mut seed = Instant::now().elapsed().as_nanos() as u64 ^ u64::from(std::process::id());
        let mut pids = Vec::new();
        let before = descriptors();
        for cycle in 0..cycles {
            while client.ping().wait().is_err() {}
            pids.push(client.child_pid().unwrap());
            let context = Context::new().grants(["ext:a", "state:write:*"]).args(&cycle);
            let extensions = || Extensions::new().method("a", "b", |args| args.get::<Option<u32>>(0));
            let runs = [
                "for (let i = 0; i < 100; i++) await $ext.a.b(i)",
                "$state.x = 'x'.repeat(1e6); return await Promise.all([$ext.a.b(1), $ext.a.b(2)])",
            ]
            .map(|code| client.run(code).context(&context).extensions(extensions()).start());
            let executions = [
                client.execute("for (;;);").context(&context).start(),
                client.execute(&compiled).context(&context).start(),
            ];
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            std::thread::sleep(Duration::from_micros(seed >> 49));
            kill(&client);
            let killed = Instant::now();
            let ends = runs
                .into_iter()
                .map(|run| run.wait().err())
                .chain(executions.into_iter().map(|execution| execution.wait().err()));
            for error in ends {
                match error {
                    None => answered += 1,
                    Some(error) => {
                        assert_eq!(error.code(), ErrorCode::SidecarGone, "{error}");
                        gone += 1;
                    }
                }
            }
            slowest = slowest.max(killed.elapsed());
        }
        assert!(gone >= cycles && gone + answered == 4 * cycles, "{gone} gone, {answered} answered");
        println!(
            "{cycles} kills: {gone} calls gone, {answered} answered, the last of them {slowest:?} after the kill at most"
        );
        drop(client);
        for pid in pids {
            assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is left");
        }
        // Other tests of this process open some of their own meanwhile; a leak would be a hundred.
        assert!(descriptors() < before + 40);
    });
}
