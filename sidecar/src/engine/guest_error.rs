//! Errors as the guest describes them, turned into errors of the protocol: with place and snippet in the handler's own source.
//!
//! Everything here is a claim of the guest. It decides only what the handler's own owner gets to read. What the host alone
//! can know (that it refused something) is held against its own book.

use nexus_protocol::{ErrorCode, WireError};
use serde::Deserialize;

use super::guest_inner::Inside;
use super::refusals::{Claim, Refusals};

/// Name under which the guest compiles every handler.
const FILE: &str = "handler.js";
/// Lines around the one that is meant.
const SNIPPET_CONTEXT: usize = 2;
/// Frames of a stack; QuickJS itself notes fewer, but a handler can write its own `stack`.
const MAX_FRAMES: usize = 64;
/// Longest line of a snippet, in characters.
const MAX_SNIPPET_LINE: usize = 200;
/// Containers around one another in a description: an error, and twice as many as causes may nest.
const MAX_DEPTH: usize = 2 * nexus_protocol::limits::MAX_CAUSE_DEPTH + 4;

/// A handler's text, and what its frames call it.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub text: &'a str,
    pub name: &'a str,
}

impl<'a> Source<'a> {
    /// `name`: what the client calls the handler; none, or one that would break a frame, and it is called as the guest calls it.
    pub fn named(text: &'a str, name: &'a str) -> Self {
        Self { text, name: if fits_in_frames(name) { name } else { FILE } }
    }

    /// This place, if there is such a line. A handler is compiled with a line end behind it: what is found missing there is missing at
    /// its own end.
    fn within(&self, line: u32, column: u32) -> Option<(u32, u32)> {
        let index = (line as usize).checked_sub(1)?;
        if lines_of(self.text).nth(index).is_some() {
            return Some((line, column));
        }
        let last = lines_of(self.text).nth(index.checked_sub(1)?)?;
        Some((line - 1, u32::try_from(last.len()).ok()?.saturating_add(1)))
    }
}

impl<'a> From<&'a str> for Source<'a> {
    fn from(text: &'a str) -> Self {
        Self::named(text, "")
    }
}

/// Whether a frame can call the handler by this name.
pub fn fits_in_frames(name: &str) -> bool {
    !name.is_empty() && !name.contains(char::is_control)
}

/// What `nx_describe_error` wrote.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct GuestError {
    pub name: Option<String>,
    pub message: String,
    pub stack: Option<String>,
    pub code: Option<String>,
    pub capability: Option<String>,
    pub extension: Option<String>,
    pub method: Option<String>,
    /// The encoder has thrown it. The shim says so, of the error itself; no handler can.
    pub unencoded: bool,
    /// It was thrown for what the host has said: told as `unencoded` is.
    pub refused: bool,
    #[serde(flatten)]
    inside: Inside,
}

impl GuestError {
    pub fn decode(bytes: &[u8]) -> Self {
        let mut decoder = rmp_serde::Deserializer::from_read_ref(bytes);
        decoder.set_max_depth(MAX_DEPTH);
        Self::deserialize(&mut decoder).unwrap_or_default()
    }

    /// Line and byte column of the first frame that lies in the handler. A stack is a text that the handler may have written.
    fn place(&self, source: Source<'_>) -> Option<(u32, u32)> {
        self.stack.as_deref()?.lines().find_map(|line| Some(Frame::of(line, source)?.place))
    }

    /// The error with its place, snippet and stack. `source`: what the handler's owner wrote.
    pub fn located<'a>(&self, mut error: WireError, source: impl Into<Source<'a>>) -> WireError {
        let source = source.into();
        if let Some((line, byte_column)) = self.place(source) {
            error = error.with_location(line, utf16_column(source.text, line, byte_column));
            if let Some((code, highlight)) = snippet(source.text, line) {
                error = error.with_snippet(code, highlight);
            }
        }
        if let Some(stack) = self.stack.as_deref().map(|stack| own_frames(stack, source)).filter(|s| !s.is_empty()) {
            error = error.with_stack(stack);
        }
        error
    }

    /// The code of the refusal that it is about: of the very error that was thrown for it, not of one that says the same.
    fn code_of_refusal(&self, refusals: &Refusals) -> Option<ErrorCode> {
        if !self.refused {
            return None;
        }
        refusals.confirm(&Claim {
            code: self.code.as_deref()?,
            message: &self.message,
            capability: self.capability.as_deref(),
            extension: self.extension.as_deref(),
            method: self.method.as_deref(),
        })
    }

    /// As an error that the handler caused, who was refused these things.
    pub fn to_wire<'a>(self, fallback: ErrorCode, source: impl Into<Source<'a>>, refusals: &Refusals) -> WireError {
        let code = if self.unencoded { Some(ErrorCode::SerializationError) } else { self.code_of_refusal(refusals) };
        let message = match self.inside.first_of_several() {
            _ if !self.message.is_empty() => self.message.clone(),
            Some((count, first)) => format!("{count} errors; the first: {first}"),
            None => "the handler failed without a message".to_owned(),
        };
        let mut error = WireError::new(code.unwrap_or(fallback), message);
        if let Some(name) = &self.name {
            error = error.with_name(name.as_str());
        }
        if let (Some(ErrorCode::PermissionDenied), Some(capability)) = (code, &self.capability) {
            error = error.with_capability(capability.as_str());
        }
        if let (None, Some(own)) = (code, &self.code) {
            error = error.with_context_text("code", own.as_str());
        }
        error = self.located(error, source);
        self.inside.add_to(error)
    }
}

/// The error for a handler that was refused before the guest saw it.
pub fn syntax_error(error: &crate::analysis::SyntaxError, source: &str) -> WireError {
    let wire = WireError::new(ErrorCode::CompilationError, error.message.as_str())
        .with_name("SyntaxError")
        .with_location(error.line, error.column);
    match snippet(source, error.line) {
        Some((code, highlight)) => wire.with_snippet(code, highlight),
        None => wire,
    }
}

/// A line of a stack that is about the handler: `    at f (handler.js:3:13)` or `    at handler.js:2:9`, the file called as the
/// handler is, or, where it has no name yet, as it is compiled.
struct Frame<'a> {
    /// What stands before the file's name.
    before: &'a str,
    /// Line and byte column, within the handler.
    place: (u32, u32),
    /// What stands behind it.
    end: &'static str,
}

impl<'a> Frame<'a> {
    fn of(line: &'a str, source: Source<'_>) -> Option<Self> {
        let (rest, end) = line.strip_suffix(')').map_or((line, ""), |rest| (rest, ")"));
        let (rest, column) = rest.rsplit_once(':')?;
        let (file, row) = rest.rsplit_once(':')?;
        let before = file.strip_suffix(source.name).or_else(|| file.strip_suffix(FILE))?;
        let (row, column) = (row.parse().ok()?, column.parse().ok()?);
        Some(Self { before, place: source.within(row, column)?, end })
    }
}

/// The stack without frames that are not the handler's, its columns counted as [`utf16_column`] does.
fn own_frames(stack: &str, source: Source<'_>) -> String {
    let frame = |line: &str| {
        let Frame { before, place: (row, byte_column), end } = Frame::of(line, source)?;
        let column = utf16_column(source.text, row, byte_column);
        Some(format!("{}{}:{row}:{column}{end}", before.trim_start(), source.name))
    };
    // what is beyond the limit of a stack is not worth counting
    stack.lines().filter_map(frame).take(MAX_FRAMES).collect::<Vec<_>>().join("\n")
}

/// Lines as an editor shows them: behind a line end there is one more, if only an empty one, where a text ends too early.
pub(crate) fn lines_of(source: &str) -> impl Iterator<Item = &str> {
    source.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line))
}

/// The guest counts columns in bytes; editors and JavaScript count UTF-16 units.
fn utf16_column(source: &str, line: u32, byte_column: u32) -> u32 {
    let Some(text) = lines_of(source).nth(line.saturating_sub(1) as usize) else { return byte_column };
    let bytes = text.floor_char_boundary((byte_column.saturating_sub(1) as usize).min(text.len()));
    text[..bytes].encode_utf16().count() as u32 + 1
}

/// Up to five lines, and which of them (from 1) is meant.
fn snippet(source: &str, line: u32) -> Option<(String, u32)> {
    let lines: Vec<&str> = lines_of(source).collect();
    let at = (line as usize).checked_sub(1).filter(|at| *at < lines.len())?;
    let first = at.saturating_sub(SNIPPET_CONTEXT);
    let last = (at + SNIPPET_CONTEXT).min(lines.len() - 1);
    let code: Vec<String> = lines[first..=last].iter().map(|l| l.chars().take(MAX_SNIPPET_LINE).collect()).collect();
    Some((code.join("\n"), (at - first + 1) as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(stack: &str) -> GuestError {
        GuestError { message: "m".into(), stack: Some(stack.into()), ..Default::default() }
    }

    #[test]
    fn the_first_frame_of_the_handler_is_the_place() {
        let e = error("    at <anonymous> (native)\n    at f (handler.js:2:3)\n    at handler (handler.js:4:1)\n");
        let wire = e.to_wire(ErrorCode::ExecutionError, "a\nbbb\nc\nd", &Refusals::default());
        let location = wire.location.unwrap();
        assert_eq!((location.line, location.column), (2, 3));
        assert_eq!(&*wire.stack.unwrap(), "at f (handler.js:2:3)\nat handler (handler.js:4:1)");
        let snippet = wire.snippet.unwrap();
        assert_eq!((snippet.code.as_str(), snippet.highlight_line), ("a\nbbb\nc\nd", 2));
    }

    #[test]
    fn the_end_of_the_text_is_a_place() {
        let wire =
            error("    at handler.js:2:1\n").to_wire(ErrorCode::CompilationError, "if (a) {\r\n", &Refusals::default());
        let snippet = wire.snippet.unwrap();
        assert_eq!((snippet.code.as_str(), snippet.highlight_line), ("if (a) {\n", 2));
    }

    #[test]
    fn columns_are_utf16_units() {
        let wire =
            error("    at handler.js:1:8\n").to_wire(ErrorCode::CompilationError, "'é😀' x", &Refusals::default());
        assert_eq!(wire.location.unwrap().column, 5);
    }

    #[test]
    fn nonsense_gives_no_place() {
        for stack in ["", "at handler.js", "handler.js:x:1", "handler.js:99999999999:1", "handler.js:"] {
            assert_eq!(
                error(stack).to_wire(ErrorCode::ExecutionError, "x", &Refusals::default()).location,
                None,
                "{stack}"
            );
        }
    }

    #[test]
    fn places_lie_inside_of_the_source() {
        let claimed =
            "at f (handler.js:77:88)\nat g (handler.js:0:1)\nat h (handler.js:2:99)\nat handler (handler.js:1:1)";
        let wire = error(claimed).to_wire(ErrorCode::ExecutionError, "first\nlast", &Refusals::default());
        let location = wire.location.unwrap();
        assert_eq!((location.line, location.column), (2, 5));
        assert_eq!(&*wire.stack.unwrap(), "at h (handler.js:2:5)\nat handler (handler.js:1:1)");
        let wire = error("at f (handler.js:77:88)").to_wire(ErrorCode::ExecutionError, "x", &Refusals::default());
        assert_eq!((wire.location, wire.snippet, wire.stack), (None, None, None));
    }

    #[test]
    fn frames_name_the_handler_as_the_client_does() {
        let frames = |name| {
            let told = error("    at f (handler.js:1:2)\n    at handler.js:1:1");
            let wire = told.to_wire(ErrorCode::ExecutionError, Source::named("text", name), &Refusals::default());
            wire.stack.unwrap().to_string()
        };
        assert_eq!(frames("orders/save"), "at f (orders/save:1:2)\nat orders/save:1:1");
        for name in ["1", "a (b)", ":1:1", "f"] {
            let told = error(&format!("    at f ({name}:1:2)\n    at {name}:1:1\n    at other:1:3"));
            let wire = told.to_wire(ErrorCode::ExecutionError, Source::named("text", name), &Refusals::default());
            assert_eq!(wire.stack.as_deref(), Some(&*format!("at f ({name}:1:2)\nat {name}:1:1")));
            assert_eq!(wire.location.map(|at| (at.line, at.column)), Some((1, 2)));
        }
        for none in ["", "two\nlines", "nul\0"] {
            assert_eq!(frames(none), "at f (handler.js:1:2)\nat handler.js:1:1", "{none:?}");
        }
    }

    #[test]
    fn codes_of_the_host_count_only_for_what_it_refused() {
        let claim = |refused, refusals: &Refusals| {
            let claimed = GuestError {
                refused,
                message: "m".into(),
                code: Some("PERMISSION_DENIED".into()),
                capability: Some("state:read:a".into()),
                ..Default::default()
            };
            claimed.to_wire(ErrorCode::ExecutionError, "", refusals)
        };
        let forged = claim(true, &Refusals::default());
        assert_eq!((forged.code, forged.capability), (ErrorCode::ExecutionError, None));
        assert_eq!(forged.context["code"], nexus_protocol::ContextValue::Text("PERMISSION_DENIED".into()));
        let mut refusals = Refusals::default();
        refusals.note(crate::engine::refusals::Refusal::Capability("state:read:a".into()));
        assert_eq!(claim(false, &refusals).code, ErrorCode::ExecutionError, "another error that says the same");
        let true_one = claim(true, &refusals);
        assert_eq!(
            (true_one.code, true_one.capability.as_deref()),
            (ErrorCode::PermissionDenied, Some("state:read:a"))
        );
    }

    #[test]
    fn garbage_is_an_error_without_detail() {
        assert_eq!(GuestError::decode(&[0xff, 0xc1]).message, "");
        assert_eq!(
            GuestError::decode(&[]).to_wire(ErrorCode::ExecutionError, "", &Refusals::default()).message,
            "the handler failed without a message"
        );
    }
}
