//! Starting, connecting, ending, and sidecars that vanish.

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nexus_client::{Client, Context, Error, ErrorCode, Extensions, SpawnOptions, StartError};
use support::{client, eventually, options, scratch, sidecar_binary, watched};

fn is_process(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

#[test]
fn every_call_under_way_fails_when_the_sidecar_is_killed() {
    watched(|| {
        let client = Client::spawn(options().timeout_ms(50_000)).wait().unwrap();
        let context = Context::new().grant("ext:x");
        let endless = client.execute("for (;;);").context(&context).start();
        let extensions = Extensions::new()
            .async_method("x", "never", |_| std::future::pending::<Result<(), nexus_client::CallError>>());
        let waiting = client.run("await $ext.x.never()").context(&context).extensions(extensions).start();
        let waiting = std::thread::spawn(move || waiting.wait());
        eventually("both are under way", || {
            let stats = client.stats().wait().unwrap();
            stats.active_instances == 1 && stats.suspended_instances == 1
        });
        kill(client.child_pid().unwrap());
        let error = endless.wait().unwrap_err();
        assert_eq!((error.code(), error.retryable()), (ErrorCode::SidecarGone, true));
        let Error::Gone(gone) = &error else { panic!("{error:?}") };
        assert!(gone.exit.unwrap().to_string().contains("signal: 9"), "{error}");
        assert_eq!(waiting.join().unwrap().unwrap_err().code(), ErrorCode::SidecarGone);
    });
}

#[test]
fn a_dropped_client_leaves_no_process() {
    watched(|| {
        let client = client();
        let pid = client.child_pid().unwrap();
        let clone = client.clone();
        drop(client);
        clone.ping().wait().unwrap();
        assert!(is_process(pid));
        drop(clone);
        eventually("the child is reaped", || !is_process(pid));
    });
}

#[test]
fn a_dropped_client_does_not_wait_for_an_endless_handler() {
    watched(|| {
        let client = Client::spawn(options().timeout_ms(50_000)).wait().unwrap();
        let pid = client.child_pid().unwrap();
        let call = client.execute("for (;;);").start();
        eventually("the handler runs", || client.stats().wait().unwrap().active_instances == 1);
        drop(client);
        eventually("the child is reaped", || !is_process(pid));
        assert_eq!(call.wait().unwrap_err().code(), ErrorCode::SidecarGone);
    });
}

#[test]
fn shutdown_lets_what_runs_finish_and_ends_the_sidecar() {
    watched(|| {
        let client = client();
        let pid = client.child_pid().unwrap();
        let last = client.execute("let n = 0; for (let i = 0; i < 1e6; i++) n += i; return n").start();
        client.shutdown().wait().unwrap();
        assert_eq!(last.wait().unwrap().into_result().unwrap().value::<f64>().unwrap(), 499_999_500_000.0);
        assert!(!is_process(pid));
        assert_eq!(client.ping().wait().unwrap_err().code(), ErrorCode::SidecarGone);
    });
}

#[test]
fn a_program_that_is_no_sidecar_is_told_from_one() {
    watched(|| {
        let spawn = |binary: &str| Client::spawn(SpawnOptions::new().binary(binary)).wait().unwrap_err();
        let error = spawn("/nowhere/nexus-sidecar");
        assert!(error.to_string().contains("/nowhere/nexus-sidecar"), "{error}");
        assert!(!error.retryable());
        let error = spawn("/bin/false");
        let Error::Start(start) = &error else { panic!("{error:?}") };
        let StartError::NoHello(gone) = &**start else { panic!("{error:?}") };
        assert_eq!(gone.exit.unwrap().code(), Some(1));
    });
}

#[test]
fn a_sidecar_that_refuses_its_configuration_says_why() {
    watched(|| {
        let error = Client::spawn(options().max_instances(0)).wait().unwrap_err();
        assert_eq!(error.code(), ErrorCode::SidecarGone);
        assert!(error.to_string().contains("max"), "{error}");
    });
}

#[test]
fn a_sidecar_that_listens_can_be_connected_to() {
    watched(|| {
        let directory = scratch("socket");
        let socket = directory.join("made-by-it/nexus.sock");
        let mut sidecar = Command::new(sidecar_binary())
            .arg("serve")
            .arg("--listen")
            .arg(&socket)
            .arg("--cache-dir")
            .arg(directory.join("cache"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("it listens", || Client::connect(&socket).wait().is_ok());
        let clients: Vec<_> = (0..3).map(|_| Client::connect(&socket).wait().unwrap()).collect();
        for (n, client) in clients.iter().enumerate() {
            assert_eq!(client.child_pid(), None);
            let segment = client.execute("return $args").args(&n).wait().unwrap();
            assert_eq!(segment.value::<usize>().unwrap(), n);
        }
        // A connection ends; the sidecar and the others go on.
        clients[0].shutdown().wait().unwrap();
        clients[1].ping().wait().unwrap();
        sidecar.kill().unwrap();
        sidecar.wait().unwrap();
        assert_eq!(clients[1].ping().wait().unwrap_err().code(), ErrorCode::SidecarGone);
    });
}

#[test]
fn a_socket_that_is_not_there_is_named() {
    let error = Client::connect("/nowhere/nexus.sock").wait().unwrap_err();
    assert!(error.to_string().contains("/nowhere/nexus.sock"), "{error}");
    assert_eq!((error.code(), error.retryable()), (ErrorCode::SidecarGone, true));
}

#[test]
fn a_hundred_clients_come_and_go_without_leaving_descriptors() {
    watched(|| {
        let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let directory = scratch("socket-many");
        let socket = directory.join("made-by-it/s");
        let mut sidecar = Command::new(sidecar_binary())
            .args(["serve".as_ref(), "--listen".as_ref(), socket.as_os_str()])
            .args(["--cache-dir".as_ref(), directory.join("cache").as_os_str()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("it listens", || Client::connect(&socket).wait().is_ok());
        for _ in 0..100 {
            Client::connect(&socket).wait().unwrap().ping().wait().unwrap();
        }
        // Other tests of this process open some of their own meanwhile; a leak would be hundreds.
        let leaked = descriptors();
        assert!(leaked < 250, "{leaked} descriptors");
        sidecar.kill().unwrap();
        sidecar.wait().unwrap();
        std::thread::sleep(Duration::from_millis(1));
    });
}
