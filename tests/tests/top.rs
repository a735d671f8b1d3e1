//! `top` on a terminal: choosing, ending, sorting, other sizes, and the terminal as it was afterwards.

use nexus_protocol::ErrorCode;
use nexus_tests::process::command;
use nexus_tests::temp::TempDir;
use nexus_tests::terminal::Terminal;
use nexus_tests::{Client, Options, Run, SOON, Sidecar, Watchdog, eventually};
use nix::sys::signal::Signal;
use std::os::unix::process::ExitStatusExt;

struct Watched {
    terminal: Terminal,
    sidecar: Sidecar,
    client: Client,
    _dir: TempDir,
}

/// `top` looks at a sidecar with that many suspended executions, named `h1` and on.
fn watched(suspended: usize, columns: u16, rows: u16) -> Watched {
    let sidecar = Options::new().patient().listen();
    let mut client = sidecar.connect();
    for number in 1..=suspended {
        let run = Run::source("await $ext.a.b(); return 1").grant(&["ext:a"]);
        client.run(run.handler_name(&format!("h{number}"))).call();
    }
    let dir = TempDir::new();
    let mut top = command(dir.path());
    top.arg("top").arg("--connect").arg(sidecar.path()).args(["--interval-ms", "100"]).env("TERM", "vt100");
    let terminal = Terminal::start(&top, columns, rows);
    terminal.wait_for_text(&format!("{suspended} executions: 0 running, {suspended} suspended"));
    Watched { terminal, sidecar, client, _dir: dir }
}

fn chosen(text: &str) -> &str {
    text.lines().find(|line| line.starts_with('>')).unwrap_or_default()
}

fn wait_for_chosen(terminal: &Terminal, name: &str) {
    terminal.wait_for(name, |text| chosen(text).contains(name));
}

#[test]
fn an_execution_is_chosen_and_ended_after_a_yes() {
    let _w = Watchdog::seconds(60);
    let mut watched = watched(3, 80, 24);
    let Watched { terminal, client, .. } = &mut watched;
    let text = terminal.wait_for_text("q quit");
    assert!(text.lines().count() == 24 && text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(chosen(&text).contains("h1, nexus-tests"), "{text}");
    terminal.press("\u{1b}[B");
    wait_for_chosen(terminal, "h2");
    terminal.press("jk");
    wait_for_chosen(terminal, "h2");
    terminal.press("x");
    terminal.wait_for_text(", h2? y/n");
    terminal.press("n");
    terminal.wait_for_text("q quit");
    assert_eq!(client.executions()["total"], 3, "nobody said yes");
    terminal.press("x");
    terminal.wait_for_text(", h2? y/n");
    terminal.press("y");
    terminal.wait_for_text("is told to end");
    terminal.wait_for_text("2 executions: 0 running, 2 suspended");
    wait_for_chosen(terminal, "h3");
    terminal.press("q");
    assert_eq!(terminal.wait().code(), Some(0));
    eventually("the terminal is given back", SOON, || terminal.is_given_back());
}

#[test]
fn a_running_execution_that_is_ended_tells_its_client() {
    let _w = Watchdog::seconds(60);
    let mut watched = watched(1, 80, 24);
    let Watched { terminal, client, .. } = &mut watched;
    let running = client.start(Run::source("for (;;);").handler_name("endless"));
    terminal.wait_for_text("endless");
    terminal.press("sss");
    terminal.wait_for_text("(by memory)");
    terminal.press("sG");
    terminal.wait_for_text("(by state)");
    terminal.press("g");
    wait_for_chosen(terminal, "endless");
    terminal.press("xy");
    assert_eq!(client.segment(running).code(), ErrorCode::Cancelled);
}

#[test]
fn the_screen_follows_the_size_of_the_terminal() {
    let _w = Watchdog::seconds(60);
    let mut watched = watched(20, 80, 24);
    let terminal = &mut watched.terminal;
    terminal.press("G");
    wait_for_chosen(terminal, "h20");
    for (columns, rows) in [(40, 10), (100, 30), (10, 4), (80, 24)] {
        terminal.resize(columns, rows);
        let fits = |text: &str| {
            text.lines().count() == usize::from(rows)
                && text.lines().all(|line| line.chars().count() <= usize::from(columns))
                && (columns < 80 || text.contains("q quit"))
                && !chosen(text).is_empty()
        };
        terminal.wait_for(&format!("{columns} x {rows}"), fits);
    }
}

#[test]
fn the_terminal_is_given_back_whatever_ends_it() {
    let _w = Watchdog::seconds(60);
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        let mut watched = watched(0, 80, 24);
        let terminal = &mut watched.terminal;
        assert!(!terminal.is_given_back());
        terminal.signal(signal);
        assert_eq!(terminal.wait().signal(), Some(signal as i32));
        eventually("the terminal is given back", SOON, || terminal.is_given_back());
    }
    let mut watched = watched(0, 80, 24);
    let terminal = &mut watched.terminal;
    terminal.press("\u{3}");
    assert_eq!(terminal.wait().code(), Some(0), "Ctrl-C");
    eventually("the terminal is given back", SOON, || terminal.is_given_back());
}

#[test]
fn a_sidecar_that_goes_ends_it_with_a_message_on_the_screen_of_before() {
    let _w = Watchdog::seconds(60);
    let mut watched = watched(1, 80, 24);
    let Watched { terminal, sidecar, .. } = &mut watched;
    sidecar.kill();
    assert_eq!(terminal.wait().code(), Some(1));
    terminal.wait_for_text("nexus-sidecar: ");
    eventually("the terminal is given back", SOON, || terminal.is_given_back());
}

#[test]
fn a_stopped_one_gives_the_terminal_back_and_takes_it_again() {
    let _w = Watchdog::seconds(60);
    let mut watched = watched(1, 80, 24);
    let terminal = &mut watched.terminal;
    terminal.press("\u{1a}");
    eventually("the terminal is given back", SOON, || terminal.is_given_back());
    terminal.signal(Signal::SIGCONT);
    eventually("it is taken again", SOON, || terminal.screen().alternate);
    terminal.wait_for_text("q quit");
    terminal.press("q");
    assert_eq!(terminal.wait().code(), Some(0));
}

#[test]
fn a_terminal_that_cannot_move_its_cursor_gets_plain_pages() {
    let _w = Watchdog::seconds(60);
    let sidecar = Options::new().patient().listen();
    let dir = TempDir::new();
    let mut top = command(dir.path());
    top.arg("top").arg("--connect").arg(sidecar.path()).args(["--interval-ms", "100"]).env("TERM", "dumb");
    let terminal = Terminal::start(&top, 80, 24);
    terminal.wait_for("two pages", |text| text.matches("0 executions: ").count() >= 2);
    assert!(terminal.is_given_back());
}
