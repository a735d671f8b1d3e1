//! What to do about mistakes that people make often, in place of what a parser makes of them.
//!
//! The parser says what it expected where it gave up; what was meant is often a word before that.

use super::SyntaxError;
use super::parse::Mistake;
use super::place;

pub(super) const IMPORT: &str =
    "a handler cannot import modules: put the code into the handler, or call an extension, `$ext.name.method()`";
pub(super) const EXPORT: &str = "a handler cannot export: leave `export` out, and `return` the result";
const AWAIT: &str = "`await` is only for async functions: write `async` before the function that it stands in";
const NAMED_AWAIT: &str = "`await` cannot be a name in a handler, which waits with it: give this another name";
const WITH: &str = "`with` is not for strict code: name the object each time, or leave out \"use strict\"";

/// The mistake, with advice if there is some.
pub(super) fn advised(source: &str, mistake: Mistake) -> Mistake {
    let offset = source.floor_char_boundary(mistake.offset.min(source.len()));
    let (before, after) = source.split_at(offset);
    // a word that the parser stumbles over, or that it has just taken for a name
    let spaced = before.trim_end();
    let start = word_start(spaced);
    let (last, next) = (spaced.get(start..).unwrap_or_default(), word(after));
    let (message, offset) = match (last, next) {
        (_, "import") => (IMPORT, offset),
        (_, "export") => (EXPORT, offset),
        ("import", _) => (IMPORT, start),
        ("export", _) => (EXPORT, start),
        // `await x`, of which `await` is a name
        ("await", _) if after.trim_start().starts_with(|c: char| is_word(c) || matches!(c, '\'' | '"' | '{')) => {
            (AWAIT, start)
        }
        (last, "await") if mistake.message.contains("await") => {
            let behind = after.trim_start_matches("await").trim_start();
            let declared = matches!(last, "let" | "const" | "var" | "function" | "class");
            let is_name = declared || behind.is_empty() || behind.starts_with(['=', ',', ';', ':', ')', ']', '}']);
            (if is_name { NAMED_AWAIT } else { AWAIT }, offset)
        }
        // `1_000_`: what comes behind is what the parser stumbles over
        (number, _)
            if number.starts_with(|c: char| c.is_ascii_digit()) && (number.ends_with('_') || next.starts_with('_')) =>
        {
            let at = if number.ends_with('_') { spaced.len() - 1 } else { offset };
            ("a `_` in a number stands between two of its digits", at)
        }
        // all that is behind it is the brace around the handler
        _ if after.trim_start().is_empty() && spaced.ends_with('}') && mistake.message == "Unexpected token" => {
            ("this `}` closes nothing", spaced.len() - 1)
        }
        _ if after.trim_start().is_empty() => return Mistake { offset, message: at_the_end(&mistake.message) },
        _ => return Mistake { offset, ..mistake },
    };
    Mistake { offset, message: message.to_owned() }
}

/// Of a mistake at the end of a handler, behind which the parser finds the end of what is around it.
fn at_the_end(message: &str) -> String {
    match message {
        // the character is of what is around the handler
        other if other == "Unexpected token" || other.starts_with("Invalid Character") => {
            "Unexpected end of the handler".to_owned()
        }
        other => {
            other.replace("but found `}`", "but the handler ends").replace("but found `EOF`", "but the handler ends")
        }
    }
}

/// What to say of a mistake that the parser lets pass and QuickJS does not, if there is more to say than QuickJS does. `line`
/// and `column` are where it found it.
pub fn beyond_parser(source: &str, message: &str, line: u32, column: u32) -> Option<SyntaxError> {
    let at = place::offset(source, line, column);
    let (before, after) = source.split_at(at);
    let told = |message: String, offset| {
        let (line, column) = place::place(source, offset);
        Some(SyntaxError { message, line, column })
    };
    if message.contains("with") && word(after) == "with" {
        return told(WITH.to_owned(), at);
    }
    if let Some(word) = ["break", "continue"].into_iter().find(|word| message.starts_with(&format!("{word} must be"))) {
        let start = last_word(before, word)?;
        let of = if word == "break" { "loops and `switch`" } else { "loops" };
        return told(format!("`{word}` is only for {of}, and none is around it: leave it out, or `return`"), start);
    }
    if message.contains("label not found") {
        // it stands at the label, or behind it
        let spaced = before.trim_end();
        let start = word_start(spaced);
        let (label, start) = match spaced.get(start..)? {
            "break" | "continue" => (word(after), at),
            label => (label, start),
        };
        let message = format!(
            "nothing around this has the label `{label}`: write it before the loop, as in `{label}: for (...)`"
        );
        return told(message, start);
    }
    if message.contains("redefinition") {
        // it has read on: the name is the last word before, or behind the `class` before
        let spaced = before.trim_end();
        let last = word_start(spaced);
        let (start, name) = match spaced.get(last..).filter(|name| !name.is_empty()) {
            Some(name) => (last, name),
            None => {
                let start = spaced.rfind("class ")? + "class ".len();
                (start, word(spaced.get(start..)?))
            }
        };
        return told(
            format!("`{name}` is declared twice: give one of them another name, or assign to the first"),
            start,
        );
    }
    // it has read on, and stands behind these
    if message.starts_with("property constructor appears") {
        let start = last_word(before, "constructor")?;
        return told("a class has one `constructor`: make one of the two".to_owned(), start);
    }
    if message.starts_with("cannot delete a direct reference") {
        let start = last_word(before, "delete")?;
        return told("strict code cannot delete a variable: delete a property, or assign undefined".to_owned(), start);
    }
    if message.starts_with("Duplicate parameter") {
        return told("two parameters of this function have the same name: give one of them another".to_owned(), at);
    }
    None
}

/// Where this word stands last in the text.
fn last_word(text: &str, word: &str) -> Option<usize> {
    let stands_alone = |at: usize| {
        let behind = text.get(at + word.len()..).and_then(|rest| rest.chars().next());
        let before = text.get(..at).and_then(|rest| rest.chars().next_back());
        ![behind, before].into_iter().flatten().any(is_word)
    };
    text.rmatch_indices(word).map(|(at, _)| at).find(|at| stands_alone(*at))
}

fn word(text: &str) -> &str {
    text.split(|c: char| !is_word(c)).next().unwrap_or_default()
}

/// Where the word begins that ends the text.
fn word_start(text: &str) -> usize {
    text.rfind(|c: char| !is_word(c))
        .map_or(0, |at| at + text.get(at..).and_then(|t| t.chars().next()).map_or(1, char::len_utf8))
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '$' | '#')
}
