//! One execution in one line.
//!
//! Invariant: names come from clients, and are harmless for a terminal and cut before they are in an [`Entry`].

use nexus_protocol::message::ExecutionEntry;

use super::super::remote::bytes_text;
use crate::observe::logging::escape;

/// Names that are longer are cut.
const NAME_CHARS: usize = 40;
pub(super) const HEADER: &str = "     ID STATE          AGE      CPU     MEMORY CALLS HANDLER, CLIENT";

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub id: u64,
    pub state: &'static str,
    pub age_ms: u64,
    pub cpu_us: u64,
    pub memory_bytes: Option<u64>,
    pub pending_calls: u64,
    /// Panel and handler.
    pub handler: String,
    pub client: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Entries {
    pub list: Vec<Entry>,
    /// There may be more than are listed.
    pub total: u64,
}

impl Entries {
    pub(super) fn from_wire(executions: &[ExecutionEntry<'_>], total: u64) -> Self {
        Self { list: executions.iter().map(Entry::from_wire).collect(), total }
    }

    /// How many there are of each kind.
    pub(super) fn summary(&self) -> String {
        let count = |state: &str| self.list.iter().filter(|entry| entry.state == state).count();
        let more = if self.total > self.list.len() as u64 { ", and more that are not listed" } else { "" };
        let (running, suspended, queued) = (count("running"), count("suspended"), count("queued"));
        format!("{} executions: {running} running, {suspended} suspended, {queued} queued{more}", self.total)
    }

    /// All of them, for a page that nobody scrolls.
    pub(super) fn table(&self) -> String {
        let mut out = format!("{}\n{HEADER}\n", self.summary());
        for entry in &self.list {
            out.push_str(&entry.line());
            out.push('\n');
        }
        out
    }
}

impl Entry {
    fn from_wire(e: &ExecutionEntry<'_>) -> Self {
        let handler = match (e.panel_id, e.handler_name) {
            (Some(panel), Some(handler)) => format!("{}/{}", short(panel), short(handler)),
            (Some(one), None) | (None, Some(one)) => short(one),
            (None, None) => "-".to_owned(),
        };
        Self {
            id: e.id,
            state: e.state.as_str(),
            age_ms: e.age_ms,
            cpu_us: e.cpu_us,
            memory_bytes: e.memory_bytes,
            pending_calls: e.pending_calls.into(),
            handler,
            client: format!("{} (pid {}, session {})", short(e.client), e.pid, e.session),
        }
    }

    /// In the columns of [`HEADER`].
    pub(super) fn line(&self) -> String {
        let memory = self.memory_bytes.map_or_else(|| "-".to_owned(), bytes_text);
        let (age, cpu) = (time(self.age_ms.saturating_mul(1000)), time(self.cpu_us));
        let Self { id, state, pending_calls, handler, client, .. } = self;
        format!("{id:>7} {state:<9} {age:>8} {cpu:>8} {memory:>10} {pending_calls:>5} {handler}, {client}")
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
            ..running
        };
        let page = Entries::from_wire(&[running, suspended], 3).table();
        assert!(page.starts_with("3 executions: 1 running, 1 suspended, 0 queued, and more"), "{page}");
        assert!(page.contains("      7 running      1.5 s 900.0 ms    1.0 MiB     0 orders/save"), "{page}");
        assert!(page.contains("orders/save, kernel\\u{1b}[2J (pid 99, session 16)"), "{page}");
        assert!(page.contains("      8 suspended"), "{page}");
        assert!(!page.contains('\u{1b}'));
    }

    #[test]
    fn times_have_a_unit_that_fits() {
        assert_eq!([7, 1_500, 2_500_000, 600_000_000].map(time), ["7 us", "1.5 ms", "2.5 s", "10 min"]);
    }
}
