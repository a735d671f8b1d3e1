//! An error as text for people: what went wrong, where, and the lines of the handler around it. The Node client's `formatError`
//! writes the same.
//!
//! Invariant: what a handler wrote is its author's; nothing of it can steer a terminal.

use std::fmt::{self, Write};

use crate::error::Error;
use crate::told::{Cause, Location, SidecarError};

/// Lines before and behind the one that is meant.
const AROUND: usize = 2;
/// A longer line is cut, in UTF-16 units: some handlers are one line.
const MAX_LINE_UNITS: usize = 160;
/// Causes of causes.
const MAX_CAUSES: usize = 5;

const RED: u8 = 31;
const CYAN: u8 = 36;
const GREY: u8 = 90;

/// An error as text for people, from [`Error::report`]; several lines, without an end of line behind the last.
///
/// ```no_run
/// # use nexus_client::Client;
/// # async fn example(client: Client) {
/// let source = "const a = 1\nnull.x";
/// if let Err(error) = client.run(source).await {
///     eprintln!("{}", error.report().source(source).color(true));
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    error: &'a Error,
    source: Option<&'a str>,
    color: bool,
    handler_name: &'a str,
}

impl Error {
    /// The error as text for people.
    pub fn report(&self) -> Report<'_> {
        Report { error: self, source: None, color: false, handler_name: "handler.js" }
    }
}

impl<'a> Report<'a> {
    /// The handler's source. Without it the lines that the error brought (with `debug`), or none.
    #[must_use]
    pub fn source(mut self, source: &'a str) -> Self {
        self.source = Some(source);
        self
    }

    /// With the escape sequences of terminals, or (the default) without.
    #[must_use]
    pub fn color(mut self, color: bool) -> Self {
        self.color = color;
        self
    }

    /// What the place is called; `handler.js` by default.
    #[must_use]
    pub fn handler_name(mut self, name: &'a str) -> Self {
        self.handler_name = name;
        self
    }

    fn paint(&self, code: u8, text: impl fmt::Display) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    /// The lines that there are, and the number of the first.
    fn lines<'e>(&self, error: &'e SidecarError, location: Location) -> (Vec<&'e str>, usize)
    where
        'a: 'e,
    {
        match (self.source, &error.snippet) {
            (Some(source), _) => (split_lines(source), 1),
            (None, Some(snippet)) => {
                let first = (location.line as usize + 1).saturating_sub(snippet.highlight_line as usize);
                (split_lines(&snippet.code), first)
            }
            (None, None) => (Vec::new(), 1),
        }
    }

    fn frame(&self, f: &mut fmt::Formatter<'_>, error: &SidecarError, location: Location) -> fmt::Result {
        let (lines, first) = self.lines(error, location);
        let (meant, column) = (location.line as usize, (location.column as usize).saturating_sub(1));
        let line_at = |number: usize| number.checked_sub(first).and_then(|at| lines.get(at));
        if line_at(meant).is_none() {
            return Ok(());
        }
        let width = (meant + AROUND).to_string().len();
        for number in meant.saturating_sub(AROUND)..=meant + AROUND {
            let Some(line) = line_at(number) else { continue };
            let line: Vec<u16> = harmless(line).encode_utf16().collect();
            let is_meant = number == meant;
            let gutter = format!("{} {number:width$} | ", if is_meant { '>' } else { ' ' });
            let from = if is_meant { column.saturating_sub(MAX_LINE_UNITS / 2) } else { 0 };
            let shown = String::from_utf16_lossy(part(&line, from, from + MAX_LINE_UNITS));
            write!(f, "\n{}{shown}", self.paint(if is_meant { RED } else { GREY }, gutter))?;
            if is_meant {
                // Tabs stay tabs, so that the mark stands below its place whatever their width is.
                let before = part(&line, from, column).iter().map(|&unit| if unit == 9 { '\t' } else { ' ' });
                let gutter = self.paint(GREY, format_args!("  {:width$} | ", ""));
                write!(f, "\n{gutter}{}{}", before.collect::<String>(), self.paint(RED, '^'))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.paint(RED, self.error.code().as_str());
        let Some(error) = self.error.as_sidecar() else {
            return write!(f, "{code}: {}", harmless(&self.error.to_string()));
        };
        let name = error.name.as_deref().filter(|name| *name != "Error").map(|name| format!("{name}: "));
        write!(f, "{code}: {}", harmless(&(name.unwrap_or_default() + &error.message)))?;
        if let Some(location) = error.location {
            let Location { line, column, .. } = location;
            write!(f, "\n{}", self.paint(CYAN, format_args!("  at {}:{line}:{column}", self.handler_name)))?;
            self.frame(f, error, location)?;
        }
        let mut cause = error.cause.as_deref();
        let thrown = self.error.as_run().and_then(|run| run.extension_error()).filter(|_| cause.is_none());
        if let Some(thrown) = thrown {
            write!(f, "\n  caused by {}", harmless(&thrown.to_string()))?;
        }
        for depth in 1..=MAX_CAUSES {
            let Some(Cause { name, message, value, cause: next, .. }) = cause else { break };
            f.write_char('\n')?;
            (0..depth).try_for_each(|_| f.write_str("  "))?;
            let name = name.as_deref().unwrap_or("Error");
            match value {
                None => write!(f, "caused by {}", harmless(&format!("{name}: {message}")))?,
                Some(_) => write!(f, "caused by {}", harmless(message))?,
            }
            cause = next.as_deref();
        }
        Ok(())
    }
}

fn part(line: &[u16], from: usize, to: usize) -> &[u16] {
    let to = to.min(line.len());
    line.get(from.min(to)..to).unwrap_or_default()
}

/// As JavaScript counts them.
fn split_lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['\n', '\r', '\u{2028}', '\u{2029}']) {
        let (line, end) = rest.split_at(at);
        lines.push(line);
        let mut after = end.chars();
        if end.starts_with("\r\n") {
            after.next();
        }
        after.next();
        rest = after.as_str();
    }
    lines.push(rest);
    lines
}

/// What would steer a terminal is shown as a replacement character.
fn harmless(text: &str) -> String {
    let steers = |char: char| matches!(char, '\0'..='\x08' | '\x0b'..='\x1f' | '\x7f'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|char| if steers(char) { '\u{fffd}' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use nexus_protocol::inner::InnerError;
    use nexus_protocol::{ErrorCode, WireError};

    use super::*;

    fn thrown(message: &str, line: u32, column: u32) -> WireError {
        WireError::new(ErrorCode::ExecutionError, message).with_name("TypeError").with_location(line, column)
    }

    #[test]
    fn the_lines_around_a_place_are_shown_and_the_place_is_marked() {
        let error = Error::sidecar(thrown("cannot read", 3, 3));
        let text = error.report().source("one\r\ntwo\n\tthree\u{2028}four\nfive\nsix").to_string();
        let wanted = "EXECUTION_ERROR: TypeError: cannot read\n  at handler.js:3:3\n  1 | one\n  2 | two\n> 3 | \tthree\n    | \t ^\n  \
                      4 | four\n  5 | five";
        assert_eq!(text, wanted);
        assert_eq!(error.report().to_string(), "EXECUTION_ERROR: TypeError: cannot read\n  at handler.js:3:3");
        assert_eq!(error.report().source("one").to_string().lines().count(), 2, "no such line");
    }

    #[test]
    fn a_snippet_stands_in_for_the_source() {
        let error = Error::sidecar(thrown("x", 100, 1).with_snippet("a\nb\nc", 2));
        let text = error.report().handler_name("rules.js").to_string();
        assert_eq!(
            text.lines().skip(1).collect::<Vec<_>>(),
            ["  at rules.js:100:1", "   99 | a", "> 100 | b", "      | ^", "  101 | c"]
        );
    }

    #[test]
    fn a_long_line_is_cut_around_its_place() {
        let source = format!("{}!{}", "\u{1f600}".repeat(200), "y".repeat(500));
        let text = Error::sidecar(thrown("x", 1, 401)).report().source(&source).to_string();
        let lines: Vec<_> = text.lines().skip(2).collect();
        let shown = format!("> 1 | {}!{}", "\u{1f600}".repeat(40), "y".repeat(79));
        assert_eq!(lines, [shown, format!("    | {}^", " ".repeat(80))]);
    }

    #[test]
    fn text_of_a_handler_cannot_steer_a_terminal() {
        let hostile = "\x1b[2J\u{9b}31m\u{202e}\x07\u{2066}\r";
        let cause = InnerError::new(hostile).with_cause(InnerError::new(hostile).with_name(hostile));
        let error = Error::sidecar(thrown(hostile, 1, 1).with_cause(cause));
        let text = error.report().source(hostile).to_string();
        assert!(!text.chars().any(|char| char.is_control() && char != '\n'), "{text:?}");
        assert!(!text.contains(['\u{202e}', '\u{2066}']), "{text:?}");
        assert!(text.lines().last().unwrap().starts_with("    caused by "), "{text:?}");
        let colored = Error::sidecar(thrown("x", 1, 1)).report().source("y").color(true).to_string();
        assert!(colored.starts_with("\x1b[31mEXECUTION_ERROR\x1b[0m: TypeError: x\n\x1b[36m  at"), "{colored:?}");
    }
}
