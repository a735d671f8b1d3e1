//! The command `top`.

use std::io::{IsTerminal, Write};
use std::thread;
use std::time::Duration;

use nexus_protocol::message::Kill;
use nexus_protocol::{ClientMessage, SidecarMessage};
use serde_json::json;

use super::super::client::{Client, ClientError, Sidecar};
use super::entry::Entries;
use super::screen;
use crate::cli::Top;
use crate::error::StartError;
use crate::exit::ExitCode;

pub fn top(top: &Top, out: &mut dyn Write) -> Result<ExitCode, StartError> {
    let mut client = Client::connect(top.connect.path.as_deref())?;
    if let Some(execution) = top.kill {
        return kill(&mut client, execution, top.connect.json, out);
    }
    let interval = Duration::from_millis(top.interval_ms);
    if !top.once && !top.connect.json && can_drive() {
        return screen::run(client, interval, out);
    }
    loop {
        let page = if top.connect.json { document(&mut client)? } else { executions(&mut client)?.table() };
        out.write_all(page.as_bytes())?;
        out.flush()?;
        if top.once {
            return Ok(ExitCode::Ok);
        }
        thread::sleep(interval);
    }
}

/// Whether somebody is there to see the screen and to press keys, and the terminal can move its cursor.
fn can_drive() -> bool {
    let moves = std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
    moves && std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

fn kill(client: &mut Client, execution: u64, json: bool, out: &mut dyn Write) -> Result<ExitCode, StartError> {
    let killed = end(client, execution)?;
    match (json, killed) {
        (true, _) => writeln!(out, "{}", json!({"execution": execution, "killed": killed}))?,
        (false, true) => writeln!(out, "execution {execution} is told to end")?,
        (false, false) => writeln!(out, "there is no execution {execution}")?,
    }
    Ok(if killed { ExitCode::Ok } else { ExitCode::HandlerFailed })
}

/// Whether it was there.
pub(super) fn end(client: &mut Client, execution: u64) -> Result<bool, ClientError> {
    client.ask(&ClientMessage::Kill(Kill { execution }), |answer| match answer {
        SidecarMessage::Done(done) => Some(done.cancelled),
        _ => None,
    })
}

fn document(client: &mut Client) -> Result<String, ClientError> {
    client.ask(&ClientMessage::Executions, |answer| match answer {
        SidecarMessage::Executions(all) => Some(format!("{}\n", json!(all))),
        _ => None,
    })
}

pub(super) fn executions(client: &mut Client) -> Result<Entries, ClientError> {
    client.ask(&ClientMessage::Executions, |answer| match answer {
        SidecarMessage::Executions(all) => Some(Entries::from_wire(&all.executions, all.total)),
        _ => None,
    })
}
