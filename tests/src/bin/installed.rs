//! `installed ROOT BEFORE.deb PACKAGE.deb`: the Debian package in a machine that runs, fact by fact: install, `systemctl enable --now`,
//! first request, upgrade, a boot, purge.
//!
//! ROOT is a Debian with systemd and nothing else, which is changed; the packages are found in it by these paths.

use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use nexus_tests::Client;
use nexus_tests::machine::Machine;

const SOCKET: &str = "/run/nexus-sidecar/sidecar.sock";
const KEPT: &str = "/var/cache/nexus-sidecar/kept";
const PATIENCE: Duration = Duration::from_secs(60);

type Fact<T = String> = Result<T, String>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [root, before, package] = &words[..] else {
        eprintln!("installed ROOT BEFORE.deb PACKAGE.deb");
        return ExitCode::from(2);
    };
    match facts(Path::new(root), before, package) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("FAILED {why}");
            ExitCode::FAILURE
        }
    }
}

fn facts(root: &Path, before: &str, package: &str) -> Fact<()> {
    let machine = booted(root)?;
    // A unit may know files by their inodes; each install is in a machine that runs, as a user does it.
    must(&machine, &["dpkg", "-i", before])?;
    ensure(active(&machine, "socket")? == "inactive", "the install alone opens the socket")?;
    must(&machine, &["systemctl", "enable", "--now", "nexus-sidecar.socket"])?;
    ensure(active(&machine, "service")? == "inactive", "the service runs before somebody connects")?;
    said("install and systemctl enable --now: the socket is there, the service is not", first_request(&machine)?);

    must(&machine, &["touch", KEPT])?;
    let pid = main_pid(&machine)?;
    must(&machine, &["dpkg", "-i", package])?;
    eventually("the upgrade restarts the service", || Ok(!["0", &pid].contains(&main_pid(&machine)?.as_str())))?;
    ensure(active(&machine, "socket")? == "active", "the upgrade closes the socket")?;
    must(&machine, &["test", "-e", KEPT])?;
    said("upgrade: another process serves, the cache is kept", first_request(&machine)?);
    drop(machine);

    let machine = booted(root)?;
    ensure(active(&machine, "socket")? == "active", "after a boot nobody listens")?;
    said("after a boot the socket is there", first_request(&machine)?);

    must(&machine, &["dpkg", "--purge", "nexus-sidecar"])?;
    for kind in ["socket", "service"] {
        ensure(active(&machine, kind)? == "inactive", &format!("the purge leaves the {kind}"))?;
    }
    ensure(
        machine.run(&["pgrep", "-x", "nexus-sidecar"]).is_ok_and(|found| !found.status.success()),
        "a process stays",
    )?;
    let left = must(&machine, &["find", "/etc", "/usr", "/var/cache", "/run", "-xdev", "-name", "*nexus-sidecar*"])?;
    ensure(left.is_empty(), &format!("the purge leaves {left}"))?;
    println!("ok  purge: stopped, and nothing is left");
    Ok(())
}

fn booted(root: &Path) -> Fact<Machine> {
    let began = Instant::now();
    let machine = Machine::boot_root(root)?;
    println!("ok  systemd is up ({:.1} s)", began.elapsed().as_secs_f64());
    Ok(machine)
}

/// How long the first answer takes, from the connection on.
fn first_request(machine: &Machine) -> Fact<Duration> {
    let began = Instant::now();
    let mut client = Client::over(machine.connect(SOCKET).map_err(|e| format!("{SOCKET}: {e}"))?);
    client.set_patience(PATIENCE);
    client.hello();
    client.still_works();
    let took = began.elapsed();
    let state = active(machine, "service")?;
    ensure(state == "active", &format!("the service is {state}"))?;
    Ok(took)
}

fn said(what: &str, first: Duration) {
    println!("ok  {what}; first answer after {} ms", first.as_millis());
}

fn active(machine: &Machine, kind: &str) -> Fact {
    machine.shell(&format!("systemctl is-active nexus-sidecar.{kind}")).map_err(|e| e.to_string())
}

fn main_pid(machine: &Machine) -> Fact {
    must(machine, &["systemctl", "show", "-P", "MainPID", "nexus-sidecar.service"])
}

/// Runs a program that has to succeed; what it wrote.
fn must(machine: &Machine, words: &[&str]) -> Fact {
    let output = machine.run(words).map_err(|e| e.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let journal = machine.shell("journalctl --no-pager -n 30 -u 'nexus-sidecar.*'").unwrap_or_default();
    Err(format!("{}: {} {}\n{journal}", words.join(" "), text(&output.stdout), text(&output.stderr)))
}

fn eventually(what: &str, mut holds: impl FnMut() -> Fact<bool>) -> Fact<()> {
    let until = Instant::now() + PATIENCE;
    while !holds()? {
        ensure(Instant::now() < until, what)?;
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn ensure(holds: bool, otherwise: &str) -> Fact<()> {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}
