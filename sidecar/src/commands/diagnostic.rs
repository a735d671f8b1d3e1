//! A failed handler, shown to a person: the error, the line of the source, and a mark under the place.

use std::fmt::Write;

use nexus_protocol::error::ContextValue;
use nexus_protocol::{ErrorCode, WireError};

use crate::engine::guest_error::lines_of;
use crate::observe::logging::escape;

/// Of a long line (of minified code, say) this many characters before and after the place are shown.
const CONTEXT_CHARS: usize = 50;
const TAB: &str = "  ";

/// `name` is what the handler was read from.
pub(super) fn diagnostic(error: &WireError, name: &str, source: &str) -> String {
    let mut out = String::new();
    // What a handler threw is shown as consoles show it; the codes of the sidecar's own errors say more than `Error` does.
    let thrown = error
        .name
        .as_deref()
        .filter(|name| error.code == ErrorCode::ExecutionError && !error.message.starts_with(name));
    let thrown = thrown.map(|name| format!("{}: ", escape(name))).unwrap_or_default();
    let _ = writeln!(out, "error: {}: {thrown}{}", error.code, escape(&error.message));
    if let Some(location) = &error.location {
        let _ = writeln!(out, "  --> {}:{}:{}", escape(name), location.line, location.column);
        if let Some((text, mark)) = marked_line(source, location.line, location.column) {
            let number = location.line.to_string();
            let margin = " ".repeat(number.len());
            let _ = writeln!(out, " {margin} |\n {number} | {text}\n {margin} | {mark}");
        }
    }
    if let Some(capability) = &error.capability {
        let _ = writeln!(out, "  it would need --grant {}", escape(capability));
    }
    for (key, value) in &error.context {
        let value = match value {
            ContextValue::Text(text) => escape(text),
            ContextValue::Number(number) => number.to_string(),
        };
        let _ = writeln!(out, "  {}: {value}", escape(key));
    }
    for frame in error.stack.iter().flat_map(|stack| stack.lines()) {
        let _ = writeln!(out, "  {}", escape(frame.trim()));
    }
    out
}

/// The line, and a mark below the column. Columns count UTF-16 units, as JavaScript does.
fn marked_line(source: &str, line: u32, column: u32) -> Option<(String, String)> {
    let line = lines_of(source).nth(usize::try_from(line).ok()?.checked_sub(1)?)?;
    let wanted = usize::try_from(column).ok()?.saturating_sub(1);
    let mut units = 0;
    let before: Vec<char> = line
        .chars()
        .take_while(|ch| {
            units += ch.len_utf16();
            units <= wanted
        })
        .collect();
    let after: String = line.chars().skip(before.len()).take(CONTEXT_CHARS).collect();
    let skipped = before.len().saturating_sub(CONTEXT_CHARS);
    let head: String = before.iter().skip(skipped).collect();
    let dots = if skipped > 0 { "..." } else { "" };
    let more = if line.chars().count() > before.len() + CONTEXT_CHARS { "..." } else { "" };
    let head = format!("{dots}{}", visible(&head));
    let mark = format!("{}^", " ".repeat(head.chars().count()));
    Some((format!("{head}{}{more}", visible(&after)), mark))
}

fn visible(text: &str) -> String {
    escape(&text.replace('\t', TAB))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_marked_in_its_line() {
        let error =
            WireError::new(ErrorCode::ExecutionError, "x is not a function").with_name("TypeError").with_location(2, 7);
        let expected = "\
error: EXECUTION_ERROR: TypeError: x is not a function
  --> h.js:2:7
   |
 2 | const x()
   |       ^
";
        assert_eq!(diagnostic(&error, "h.js", "let x;\nconst x()\n"), expected);
    }

    #[test]
    fn columns_count_utf16_units_and_tabs_keep_the_mark_in_place() {
        let (text, mark) = marked_line("\t'\u{1f600}' + y", 1, 9).unwrap();
        assert_eq!(text, "  '\u{1f600}' + y");
        assert_eq!(text.chars().nth(mark.len() - 1), Some('y'));
    }

    #[test]
    fn of_a_long_line_only_the_surroundings_are_shown() {
        let line = format!("{}!{}", "a".repeat(1000), "b".repeat(1000));
        let (text, mark) = marked_line(&line, 1, 1001).unwrap();
        assert_eq!(text, format!("...{}!{}...", "a".repeat(50), "b".repeat(49)));
        assert_eq!(text.chars().nth(mark.len() - 1), Some('!'));
    }

    #[test]
    fn a_place_outside_of_the_source_is_only_named() {
        let error = WireError::new(ErrorCode::CompilationError, "unexpected end").with_location(9, 1);
        assert_eq!(diagnostic(&error, "h.js", "a"), "error: COMPILATION_ERROR: unexpected end\n  --> h.js:9:1\n");
        assert!(marked_line("a", 0, 0).is_none());
        assert_eq!(marked_line("ab", 1, 99), Some(("ab".to_owned(), "  ^".to_owned())));
    }

    #[test]
    fn the_missing_grant_and_the_limit_are_told() {
        let text = diagnostic(&WireError::permission_denied("state:read:a"), "h.js", "");
        assert!(text.contains("\n  it would need --grant state:read:a\n"), "{text}");
        let text = diagnostic(&WireError::resource_limit("events", 100, 101), "h.js", "");
        assert!(text.contains("  limit: 100\n") && text.contains("  resource: events\n"), "{text}");
    }

    #[test]
    fn what_a_handler_says_cannot_drive_the_terminal() {
        let error = WireError::new(ErrorCode::ExecutionError, "\u{1b}[2J").with_stack("at f (\u{1b}]0;x\u{7})");
        let text = diagnostic(&error, "h.js", "");
        assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'), "{text}");
    }
}
