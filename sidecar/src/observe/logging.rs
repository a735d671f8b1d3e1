//! The log: one line per record on stderr, never on stdout.
//!
//! A record may carry text that a handler or a client chose. So control characters, line breaks included, are escaped
//! (nobody can forge a line or drive a terminal), and a record is cut at [`MAX_LOG_RECORD_BYTES`]. A flood of records is
//! summed up, and what stderr does not take at once is dropped and counted: see [`flow`](super::flow).
//!
//! Rule for callers: no source, state, arguments or results at `info` or above.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::time::Instant;

use log::{Level, LevelFilter, SetLoggerError};
use nexus_protocol::limits::MAX_LOG_RECORD_BYTES;

use super::flow::{Flow, Stderr, Verdict};

/// What the lines look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Time, level, module, message.
    Plain,
    /// Priority as systemd's journal reads it; the journal keeps the time itself.
    Journal,
    /// One JSON object.
    Json,
}

impl Layout {
    /// The journal says with this variable that stderr is connected to it; `json` is what was asked for.
    pub fn detect(json: bool) -> Self {
        match std::env::var_os("JOURNAL_STREAM") {
            _ if json => Self::Json,
            Some(_) => Self::Journal,
            None => Self::Plain,
        }
    }
}

/// Starts the log, once per process.
pub fn init(level: LevelFilter, layout: Layout) -> Result<(), SetLoggerError> {
    let flow = Flow::new();
    env_logger::Builder::new()
        // what is written is decided by `log::set_max_level`, which can change
        .filter_level(LevelFilter::Trace)
        .target(env_logger::Target::Pipe(Box::new(Stderr::default())))
        .format(move |out, record| {
            let time = out.timestamp_millis();
            let mut write = |level: Level, target: &str, args: &fmt::Arguments<'_>| {
                match layout {
                    Layout::Plain => write!(out, "{time} {level:5} ")?,
                    Layout::Journal => write!(out, "<{}>", priority(level))?,
                    Layout::Json => return json_line(out, &time, level, target, args),
                }
                line(out, target, args)
            };
            // what was asked for with `--log debug` is wanted as it comes
            if record.level() > Level::Info {
                return write(record.level(), record.target(), record.args());
            }
            match flow.judge(record.level(), Instant::now()) {
                Verdict::Write { left_out: 0 } => {}
                Verdict::Write { left_out } => {
                    write(Level::Warn, module_path!(), &format_args!("{left_out} records were left out"))?;
                }
                Verdict::LastForNow => {
                    write(record.level(), record.target(), record.args())?;
                    let rest = format_args!("too many records: some that follow are left out and counted");
                    return write(Level::Warn, module_path!(), &rest);
                }
                Verdict::LeaveOut => return Ok(()),
            }
            write(record.level(), record.target(), record.args())
        })
        .try_init()?;
    log::set_max_level(level);
    Ok(())
}

/// `text` with nothing in it that could end the line or drive a terminal.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for ch in text.chars() {
        if harmless(ch) {
            out.push(ch);
        } else {
            out.extend(ch.escape_default());
        }
    }
    out
}

fn line(out: &mut impl Write, target: &str, args: &fmt::Arguments<'_>) -> io::Result<()> {
    let mut text = Capped { text: String::new(), dropped: 0 };
    // `Capped` refuses nothing; an error can only be a Display implementation's own, and then the text so far is logged.
    let _ = text.write_fmt(*args);
    write!(out, "{target}: {}", escape(&text.text))?;
    if text.dropped > 0 {
        write!(out, "... ({} bytes more)", text.dropped)?;
    }
    writeln!(out)
}

fn json_line(
    out: &mut impl Write,
    time: &impl fmt::Display,
    level: Level,
    target: &str,
    args: &fmt::Arguments<'_>,
) -> io::Result<()> {
    let mut text = Capped { text: String::new(), dropped: 0 };
    let _ = text.write_fmt(*args);
    let (level, pid) = (level.as_str().to_ascii_lowercase(), std::process::id());
    let (target, message) = (json_string(target), json_string(&text.text));
    write!(out, "{{\"time\":\"{time}\",\"level\":\"{level}\",\"target\":{target},\"pid\":{pid},\"message\":{message}")?;
    if text.dropped > 0 {
        write!(out, ",\"droppedBytes\":{}", text.dropped)?;
    }
    writeln!(out, "}}")
}

/// `text` as JSON, with escapes for whatever drives a terminal too.
fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for ch in text.chars() {
        match ch {
            '"' | '\\' => out.extend(['\\', ch]),
            _ if harmless(ch) => out.push(ch),
            _ => out.extend(
                ch.encode_utf16(&mut [0; 2])
                    .iter()
                    .flat_map(|unit| format!("\\u{unit:04x}").into_bytes())
                    .map(char::from),
            ),
        }
    }
    out.push('"');
    out
}

/// The syslog severities.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Controls, and what only moves or reorders the text around it: line and paragraph separators, bidirectional marks.
fn harmless(ch: char) -> bool {
    let reorders = matches!(ch, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !ch.is_control() && !reorders
}

/// Keeps the first [`MAX_LOG_RECORD_BYTES`] and counts the rest.
struct Capped {
    text: String,
    dropped: usize,
}

impl fmt::Write for Capped {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MAX_LOG_RECORD_BYTES.saturating_sub(self.text.len());
        let kept = if self.dropped > 0 {
            0
        } else {
            (0..=room.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0)
        };
        let (head, tail) = text.split_at(kept);
        self.text.push_str(head);
        self.dropped += tail.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(text: &str) -> String {
        let mut out = Vec::new();
        line(&mut out, "target", &format_args!("{text}")).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_record_is_one_line_whatever_it_says() {
        assert_eq!(logged("a\nERROR forged\r\u{1b}[2Jb"), "target: a\\nERROR forged\\r\\u{1b}[2Jb\n");
        assert_eq!(logged("\u{202e}drowssap\u{2028}\u{85}\u{0}"), "target: \\u{202e}drowssap\\u{2028}\\u{85}\\u{0}\n");
    }

    #[test]
    fn ordinary_text_of_any_script_is_left_alone() {
        assert_eq!(logged("gr\u{fc}n \u{5909}\u{6570} 'x' \\n"), "target: gr\u{fc}n \u{5909}\u{6570} 'x' \\n\n");
    }

    #[test]
    fn a_long_record_is_cut_at_a_character_and_says_so() {
        let text = logged(&"\u{e9}".repeat(MAX_LOG_RECORD_BYTES));
        assert!(text.len() < MAX_LOG_RECORD_BYTES + 100);
        assert!(text.ends_with(&format!("\u{e9}... ({MAX_LOG_RECORD_BYTES} bytes more)\n")), "{}", text.len());
        assert!(!logged(&"x".repeat(MAX_LOG_RECORD_BYTES)).contains("more"));
    }

    #[test]
    fn a_record_as_json_says_the_same_in_one_line_of_ascii_controls_none() {
        let mut out = Vec::new();
        let text = "a\nb \"c\" \\ \u{1b}[2J \u{202e}x \u{5909}";
        json_line(&mut out, &"2026-01-01T00:00:00.000Z", Level::Warn, "t", &format_args!("{text}")).unwrap();
        let line = String::from_utf8(out).unwrap();
        assert!(line.ends_with("}\n") && line.trim_end().chars().all(harmless), "{line}");
        let document: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&document["message"], &document["level"]), (&text.into(), &"warn".into()));
        assert_eq!(document["pid"], std::process::id());
        let mut out = Vec::new();
        let long = "\u{e9}".repeat(MAX_LOG_RECORD_BYTES);
        json_line(&mut out, &"", Level::Info, "t", &format_args!("{long}")).unwrap();
        let document: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(document["droppedBytes"], MAX_LOG_RECORD_BYTES);
    }

    #[test]
    fn severities_are_those_of_syslog() {
        let all = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
        assert_eq!(all.map(priority), [3, 4, 6, 7, 7]);
    }
}
