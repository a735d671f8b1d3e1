//! Large payloads through shared memory, with the real sidecar: nothing of it is visible but the time that they take, nothing
//! of it stays behind, and without it everything works as well.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use nexus_client::{
    Client, ClientOptions, Context, ErrorCode, Extensions, Resolution, RestartPolicy, StateMutation, StatePatch,
};
use serde_json::{Value, json};
use support::{eventually, options, scratch, sidecar_binary, watched};

const KB: usize = 1 << 10;
const MB: usize = 1 << 20;

/// The arenas that this process has open with a sidecar: what their descriptors lead to, and bytes that were written.
fn arenas(pid: u32) -> Vec<(String, u64)> {
    let prefix = format!("/dev/shm/nexus-sidecar.{pid}.");
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().flatten().map(|entry| entry.path());
    let arena = |path: PathBuf| {
        let target = fs::read_link(&path).ok()?.to_string_lossy().into_owned();
        Some((target, fs::metadata(&path).ok()?.blocks() * 512))
    };
    descriptors.filter_map(arena).filter(|(target, _)| target.starts_with(&prefix)).collect()
}

/// Bytes that were written to the arena.
fn written(pid: u32) -> u64 {
    arenas(pid).iter().map(|(_, bytes)| bytes).sum()
}

fn names(pid: u32) -> usize {
    let prefix = format!("nexus-sidecar.{pid}.");
    let names = fs::read_dir("/dev/shm").unwrap().flatten();
    names.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)).count()
}

fn granted() -> Context {
    Context::new().grants(["state:read:*", "state:write:*", "ext:*"])
}

fn echo(client: &Client, args: &str) -> String {
    let segment = client.execute("return $args").context(&granted().args(args)).wait().unwrap();
    segment.into_result().unwrap().value().unwrap()
}

/// Sends large things until they go through shared memory.
fn warm(client: &Client) {
    let text = "w".repeat(600 * KB);
    eventually("shared memory is in use", || {
        assert_eq!(echo(client, &text), text);
        written(client.pid()) > 0
    });
}

#[test]
fn before_a_large_payload_there_is_no_arena_and_then_one_without_a_name() {
    watched(|| {
        let client = support::client();
        assert_eq!(echo(&client, "small"), "small");
        assert_eq!(arenas(client.pid()), []);
        warm(&client);
        let arenas = arenas(client.pid());
        assert!(arenas.len() == 1 && arenas[0].0.ends_with(" (deleted)"), "{arenas:?}");
        assert_eq!(names(client.pid()), 0);
        assert!(client.stats().wait().unwrap().arena_bytes > 0);
    });
}

#[test]
fn values_of_every_size_arrive_as_they_are_both_ways() {
    watched(|| {
        let client = Client::spawn(options().memory_limit_bytes(128 << 20).max_result_bytes(60 << 20)).wait().unwrap();
        warm(&client);
        let sizes = [10, 100 * KB, 256 * KB - 6, 256 * KB - 5, 256 * KB, 600 * KB, 3 * MB, 100];
        for size in sizes {
            let text = "\u{e4}".repeat(size / 2);
            let context = granted().state(&json!({"text": text, "n": 1})).args(&text).scope(&json!({"s": text}));
            let source = "$state.copy = $state.text; $state.n = 2; return [$args, $scope.s]";
            let segment = client.execute(source).context(&context).wait().unwrap().into_result().unwrap();
            assert!(segment.value::<(String, String)>().unwrap() == (text.clone(), text.clone()), "{size}");
            let mutations = segment.state_mutations().unwrap();
            let [StateMutation::Set { key, value }, StateMutation::Set { .. }] = &mutations[..] else {
                panic!("{size}: {}", mutations.len())
            };
            assert!(key == "copy" && value.decode::<String>().unwrap() == text, "{size}");
        }
    });
}

#[test]
fn resumes_patches_and_snapshots_use_it_too() {
    watched(|| {
        let client = support::client();
        warm(&client);
        let text = "z".repeat(5 * MB);
        let before = written(client.pid());
        let suspended = client.execute("return (await $ext.a.b()).length").context(&granted()).wait().unwrap();
        let value = nexus_client::Payload::encode(&text).unwrap();
        let ended = client.resume(&suspended.suspensions[0].id, Resolution::Value(value)).wait().unwrap();
        assert_eq!(ended.value::<usize>().unwrap(), text.len());
        assert!(written(client.pid()) > before + 3 * MB as u64);

        let answer = text.clone();
        let extensions = Extensions::new().method("a", "b", move |_| Ok(answer.clone()));
        let run = client.run("return await $ext.a.b()").context(&granted()).extensions(extensions).start();
        assert!(run.wait().unwrap().value::<String>().unwrap() == text);

        let state = client.create_state(&json!({"a": text})).wait().unwrap();
        state.patch(&StatePatch::new().set(&json!({"b": text}))).wait().unwrap();
        let snapshot: Value = state.snapshot().wait().unwrap().decode().unwrap();
        assert!(snapshot == json!({"a": text, "b": text}));
        let small: Value = state.snapshot_of(&[]).wait().unwrap().decode().unwrap();
        assert_eq!(small, json!({}));
    });
}

#[test]
fn many_at_the_same_time_never_get_anothers_bytes_whether_there_is_room_or_not() {
    watched(|| {
        let options = options().max_arena_bytes(8 * MB as u64).max_queued(1000).timeout_ms(50_000);
        let client = Client::spawn(options.max_queue_ms(50_000)).wait().unwrap();
        warm(&client);
        std::thread::scope(|scope| {
            for thread in 0..4_usize {
                let client = &client;
                scope.spawn(move || {
                    let text = |n: usize| {
                        let letter = char::from(b'a' + (thread * 7 + n) as u8 % 26);
                        letter.to_string().repeat(200 * KB + (n * 37 * KB) % (700 * KB) + thread)
                    };
                    let call = |n: usize| client.execute("return [$args, $args.length]").args(&text(n)).start();
                    let calls: Vec<_> = (0..24).map(call).collect();
                    for (n, call) in calls.into_iter().enumerate() {
                        // Some of them are given up: what is theirs is nobody's before the sidecar is done with it.
                        if n % 5 == 4 {
                            drop(call);
                            continue;
                        }
                        let (value, length): (String, usize) = call.wait().unwrap().value().unwrap();
                        assert!(value == text(n) && length == value.len(), "{thread} {n}");
                    }
                });
            }
        });
        eventually("nothing is left", || client.stats().wait().unwrap().active_instances == 0);
        let text = "x".repeat(2 * MB);
        assert!(echo(&client, &text) == text);
    });
}

#[test]
fn switched_off_here_or_there_everything_goes_through_the_socket() {
    watched(|| {
        let off = ClientOptions::new().shared_memory(false);
        for options in [options().client(off), options().max_arena_bytes(0)] {
            let client = Client::spawn(options).wait().unwrap();
            let text = "x".repeat(MB);
            for _ in 0..3 {
                assert!(echo(&client, &text) == text);
            }
            assert_eq!(arenas(client.pid()), []);
            assert_eq!(client.stats().wait().unwrap().arena_bytes, 0);
        }
    });
}

#[test]
fn the_threshold_decides_what_is_large() {
    watched(|| {
        let low = ClientOptions::new().shared_memory_threshold_bytes(10 * KB);
        let client = Client::spawn(options().client(low)).wait().unwrap();
        let text = "x".repeat(11 * KB);
        eventually("11 KB are large", || {
            assert_eq!(echo(&client, &text), text);
            written(client.pid()) > 0
        });
        let high = ClientOptions::new().shared_memory_threshold_bytes(4 * MB);
        let client = Client::spawn(options().client(high)).wait().unwrap();
        let length = |text: &str| {
            let segment = client.execute("return $args.length").args(text).wait().unwrap();
            segment.value::<usize>().unwrap()
        };
        for _ in 0..3 {
            assert_eq!(length(&"x".repeat(3 * MB)), 3 * MB);
        }
        assert_eq!(arenas(client.pid()), []);
    });
}

#[test]
fn an_arena_goes_with_its_sidecar_and_the_next_sidecar_gets_its_own() {
    watched(|| {
        let quick = RestartPolicy::default().max_crashes(1_000);
        let client = Client::spawn(options().restart(quick).timeout_ms(50_000)).wait().unwrap();
        let text = "x".repeat(2 * MB);
        let mut pids = Vec::new();
        for _ in 0..3 {
            while client.ping().wait().is_err() {}
            warm(&client);
            let pid = client.child_pid().unwrap();
            pids.push(pid);
            // Places are lent to these when the sidecar is killed.
            let state = client.create_state(&json!({"a": text})).wait().unwrap();
            let calls: Vec<_> =
                (0..6).map(|_| client.execute("for (;;);").context(&granted().args(&text)).start()).collect();
            eventually("they run", || client.stats().wait().unwrap().active_instances == 4);
            assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
            for call in calls {
                assert_eq!(call.wait().unwrap_err().code(), ErrorCode::SidecarGone);
            }
            assert_eq!(arenas(pid), [], "also while there is a handle of a state of it");
            drop(state);
        }
        drop(client);
        eventually("nothing is left of them", || pids.iter().all(|pid| names(*pid) == 0 && arenas(*pid).is_empty()));
    });
}

#[test]
fn a_client_that_goes_leaves_nothing_open() {
    watched(|| {
        let client = support::client();
        warm(&client);
        let pid = client.pid();
        let text = "x".repeat(2 * MB);
        let calls: Vec<_> =
            (0..6).map(|_| client.execute("for (;;);").context(&granted().args(&text)).start()).collect();
        drop(client);
        eventually("nothing is left of it", || arenas(pid).is_empty() && names(pid) == 0);
        for call in calls {
            assert_eq!(call.wait().unwrap_err().code(), ErrorCode::SidecarGone);
        }
    });
}

#[test]
fn a_sidecar_in_another_container_is_talked_to_through_the_socket() {
    watched(|| {
        let program = scratch("apart").join("sidecar");
        let script = format!(
            "#!/bin/sh\nexec {} sh -c 'mount -t tmpfs none /dev/shm && exec {} \"$@\"' sh \"$@\"\n",
            unshare(),
            sidecar_binary().display()
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let client = Client::spawn(options().binary(&program)).wait().unwrap();
        let text = "x".repeat(MB);
        for _ in 0..5 {
            assert!(echo(&client, &text) == text);
        }
        eventually("it was given up", || client.stats().wait().unwrap().arena_bytes == 0);
        assert_eq!(arenas(client.pid()), []);
    });
}

/// How to get a /dev/shm of one's own.
fn unshare() -> &'static str {
    if nix::unistd::geteuid().is_root() { "unshare --mount" } else { "unshare --map-root-user --mount" }
}

/// Set in a process that has a small /dev/shm of its own.
const INSIDE: &str = "NEXUS_CLIENT_TEST_INSIDE";

#[test]
fn a_full_dev_shm_loses_nothing() {
    if std::env::var_os(INSIDE).is_none() {
        // This test again, alone, where /dev/shm has 3 MiB.
        let script = format!("{} sh -c 'mount -t tmpfs -o size=3m none /dev/shm && exec \"$@\"' sh \"$@\"", unshare());
        let inside = Command::new("sh")
            .args(["-c", &script, "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "a_full_dev_shm_loses_nothing", "--nocapture"])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        assert!(inside.status.success(), "{}", String::from_utf8_lossy(&inside.stderr));
        return;
    }
    watched(|| {
        let size = |path| nix::sys::statvfs::statvfs(path).map(|found| found.blocks() * found.fragment_size());
        assert_eq!(size("/dev/shm").unwrap(), 3 * MB as u64);
        // Answers find it full: they come in the message.
        let client = support::client();
        warm(&client);
        let filler = vec![0; 3 * MB];
        assert!(fs::write("/dev/shm/filler", &filler).is_err());
        let long = |client: &Client| {
            let segment = client.execute("return 'y'.repeat($args)").args(&(2 * MB)).wait().unwrap();
            segment.value::<String>().unwrap().len()
        };
        for _ in 0..3 {
            assert_eq!(long(&client), 2 * MB);
        }
        // Requests do: they go through the socket, and answers that are under way still come.
        let text = "x".repeat(2 * MB);
        let calls: Vec<_> =
            (0..8).map(|_| client.execute("return $args").context(&granted().args(&text)).start()).collect();
        for call in calls {
            assert!(call.wait().unwrap().value::<String>().unwrap() == text);
        }
        fs::remove_file("/dev/shm/filler").unwrap();
        for _ in 0..3 {
            assert!(echo(&client, &text) == text);
            assert_eq!(long(&client), 2 * MB);
        }
        // Full from the start.
        let _ = fs::write("/dev/shm/filler", &filler);
        let next = support::client();
        for _ in 0..3 {
            assert!(echo(&next, &text) == text);
        }
    });
}
