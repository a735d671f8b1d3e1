//! `top`: the executions of a running sidecar, again and again or once; and the end of one.

use std::io::{IsTerminal, Write};
use std::thread;
use std::time::Duration;

use nexus_protocol::message::{ExecutionEntry, Kill};
use nexus_protocol::{ClientMessage, SidecarMessage};
use serde_json::json;

use super::client::{Client, ClientError, Sidecar};
use super::remote::bytes_text;
use crate::cli::Top;
use crate::error::{ExitCode, StartError};
use crate::observe::logging::escape;

/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\x1b[H\x1b[2J";
/// Names that are longer are cut.
const NAME_CHARS: usize = 40;

pub(super) fn top(top: &Top, out: &mut dyn Write) -> Result<ExitCode, StartError> {
    let mut client = Client::connect(&top.connect.path)?;
    if let Some(execution) = top.kill {
        return kill(&mut client, execution, top.connect.json, out);
    }
    let live = !top.once;
    let clears = live && !top.connect.json && std::io::stdout().is_terminal();
    loop {
        let page = if top.connect.json { document(&mut client)? } else { table(&mut client)? };
        out.write_all(if clears { CLEAR.as_bytes() } else { b"" })?;
        out.write_all(page.as_bytes())?;
        out.flush()?;
        if !live {
            return Ok(ExitCode::Ok);
        }
        thread::sleep(Duration::from_millis(top.interval_ms));
    }
}

fn kill(client: &mut Client, execution: u64, json: bool, out: &mut dyn Write) -> Result<ExitCode, StartError> {
    let killed = client.ask(&ClientMessage::Kill(Kill { execution }), |answer| match answer {
        SidecarMessage::Done(done) => Some(done.cancelled),
        _ => None,
    })?;
    match (json, killed) {
        (true, _) => writeln!(out, "{}", json!({"execution": execution, "killed": killed}))?,
        (false, true) => writeln!(out, "execution {execution} is told to end")?,
        (false, false) => writeln!(out, "there is no execution {execution}")?,
    }
    Ok(if killed { ExitCode::Ok } else { ExitCode::HandlerFailed })
}

fn document(client: &mut Client) -> Result<String, ClientError> {
    client.ask(&ClientMessage::Executions, |answer| match answer {
        SidecarMessage::Executions(all) => Some(format!("{}\n", json!(all))),
        _ => None,
    })
}

fn table(client: &mut Client) -> Result<String, ClientError> {
    client.ask(&ClientMessage::Executions, |answer| match answer {
        SidecarMessage::Executions(all) => Some(page(&all.executions, all.total)),
        _ => None,
    })
}

fn page(executions: &[ExecutionEntry<'_>], total: u64) -> String {
    let count = |state: &str| executions.iter().filter(|e| e.state.as_str() == state).count();
    let mut out = format!(
        "{total} executions: {} running, {} suspended, {} queued{}\n",
        count("running"),
        count("suspended"),
        count("queued"),
        if total > executions.len() as u64 { ", and more that are not listed" } else { "" },
    );
    out.push_str("      ID  STATE           AGE        CPU     MEMORY  CALLS  HANDLER, CLIENT\n");
    for e in executions {
        let memory = e.memory_bytes.map_or_else(|| "-".to_owned(), bytes_text);
        out.push_str(&format!(
            "{:>8}  {:<9} {:>9}  {:>9}  {:>9}  {:>5}  {}, {} (pid {}, session {})\n",
            e.id,
            e.state.as_str(),
            time(e.age_ms * 1000),
            time(e.cpu_us),
            memory,
            e.pending_calls,
            names(e),
            short(e.client),
            e.pid,
            e.session,
        ));
    }
    out
}

fn names(e: &ExecutionEntry<'_>) -> String {
    match (e.panel_id, e.handler_name) {
        (Some(panel), Some(handler)) => format!("{}/{}", short(panel), short(handler)),
        (Some(one), None) | (None, Some(one)) => short(one),
        (None, None) => "-".to_owned(),
    }
}

/// Text of a client, harmless for a terminal.
fn short(text: &str) -> String {
    let mut out: String = text.chars().take(NAME_CHARS).collect();
    if out.len() < text.len() {
        out.push_str("...");
    }
    escape(&out)
}

fn time(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        1_000_000..120_000_000 => format!("{:.1} s", micros as f64 / 1e6),
        _ => format!("{} min", micros / 60_000_000),
    }
}

#[cfg(test)]
mod tests {
    use nexus_protocol::message::ExecutionState;

    use super::*;

    #[test]
    fn a_page_tells_of_each_execution_and_no_name_drives_the_terminal() {
        let running = ExecutionEntry {
            id: 7,
            session: 16,
            client: "kernel\u{1b}[2J",
            pid: 99,
            panel_id: Some("orders"),
            handler_name: Some("save"),
            state: ExecutionState::Running,
            age_ms: 1500,
            cpu_us: 900_000,
            memory_bytes: Some(1 << 20),
            pending_calls: 0,
        };
        let suspended = ExecutionEntry {
            id: 8,
            state: ExecutionState::Suspended,
            panel_id: None,
            handler_name: None,
            memory_bytes: None,
            pending_calls: 2,
            ..running.clone()
        };
        let page = page(&[running, suspended], 3);
        assert!(page.starts_with("3 executions: 1 running, 1 suspended, 0 queued, and more"), "{page}");
        assert!(page.contains("       7  running       1.5 s   900.0 ms"), "{page}");
        assert!(page.contains("orders/save, kernel\\u{1b}[2J (pid 99, session 16)"), "{page}");
        assert!(page.contains("       8  suspended"), "{page}");
        assert!(!page.contains('\u{1b}'));
    }

    #[test]
    fn times_have_a_unit_that_fits() {
        assert_eq!([7, 1_500, 2_500_000, 600_000_000].map(time), ["7 us", "1.5 ms", "2.5 s", "10 min"]);
    }
}
