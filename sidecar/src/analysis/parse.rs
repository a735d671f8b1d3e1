//! Handler text to syntax tree, with oxc.
//!
//! A handler is the body of an async function, so it is parsed as exactly that: as a script, inside
//! `async function`. Thus top-level `await` and `return` are legal together, the code is sloppy unless it says
//! `'use strict'`, and `with`, legacy octals and HTML-like comments are what QuickJS makes of them.
//! The first line of the wrapper ends in a line feed, so that a handler's own first line starts a line.
//!
//! Invariant: positions in the tree count from the wrapper's start; `offset` takes them to the handler.
//! A handler that closes the wrapper's brace and goes on is refused here like any stray `}`.
//! What it does not do: bound recursion. `nesting` has looked at the text, and the stack fits, before this is called.

use oxc_allocator::Allocator;
use oxc_ast::ast::{FunctionBody, Statement};
use oxc_parser::config::TokensParserConfig;
use oxc_parser::{ParseOptions, Parser, ParserReturn, Token};
use oxc_span::{GetSpan, SourceType};

const HEAD: &str = "async function handler(){\n";
const TAIL: &str = "\n}";

/// Which grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grammar {
    TypeScript,
    JavaScript,
}

/// The handler inside its wrapper.
pub(super) fn wrap(source: &str) -> String {
    let mut text = String::with_capacity(HEAD.len() + source.len() + TAIL.len());
    text.push_str(HEAD);
    text.push_str(source);
    text.push_str(TAIL);
    text
}

/// The handler out of a text that has the wrapper around it.
pub(super) fn unwrap(text: &str) -> Option<&str> {
    text.strip_prefix(HEAD)?.strip_suffix(TAIL)
}

/// Offset in the handler of a position in the wrapped text.
pub(super) fn offset(position: u32) -> usize {
    (position as usize).saturating_sub(HEAD.len())
}

/// A mistake, and its offset in the handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) offset: usize,
    pub(super) message: String,
}

/// A tree, and the mistakes that the parser could get over.
pub(super) struct Parsed<'a> {
    pub(super) body: &'a FunctionBody<'a>,
    pub(super) mistakes: Vec<Mistake>,
}

/// Parses a wrapped handler.
pub(super) fn parse<'a>(allocator: &'a Allocator, text: &'a str, grammar: Grammar) -> Result<Parsed<'a>, Mistake> {
    accept(allocator, text, Parser::new(allocator, text, source_type(grammar)).with_options(options()).parse())
}

/// The tokens of a wrapped handler that has been parsed as TypeScript without a mistake.
pub(super) fn tokens<'a>(allocator: &'a Allocator, text: &'a str) -> oxc_allocator::Vec<'a, Token> {
    let parser = Parser::new(allocator, text, source_type(Grammar::TypeScript)).with_options(options());
    parser.with_config(TokensParserConfig).parse().tokens
}

/// The message, what its place is labelled with, and the help.
fn words(message: &str, label: Option<&str>, help: Option<&str>) -> String {
    let mut words = message.to_owned();
    // which the message says already
    let label = label.filter(|label| !label.ends_with(" expected"));
    for more in label.into_iter().chain(help) {
        let more = more.trim().trim_end_matches('.');
        if !more.is_empty() && !words.contains(more) {
            words = format!("{}; {more}", words.trim_end_matches('.'));
        }
    }
    words
}

fn source_type(grammar: Grammar) -> SourceType {
    match grammar {
        Grammar::TypeScript => SourceType::ts().with_script(true),
        Grammar::JavaScript => SourceType::script(),
    }
}

fn options() -> ParseOptions {
    ParseOptions { enable_ident_hashes: false, ..ParseOptions::default() }
}

fn accept<'a>(allocator: &'a Allocator, text: &str, result: ParserReturn<'a>) -> Result<Parsed<'a>, Mistake> {
    let mut mistakes: Vec<Mistake> = result
        .diagnostics
        .iter()
        .map(|d| Mistake {
            offset: offset(d.labels.first().map_or(text.len() as u32, |label| label.offset())),
            message: words(&d.message, d.labels.first().and_then(|label| label.label()), d.help.as_deref()),
        })
        .collect();
    mistakes.sort_by_key(|m| m.offset);
    if result.panicked {
        let unknown = || Mistake { offset: 0, message: "not JavaScript or TypeScript".into() };
        return Err(mistakes.into_iter().next().unwrap_or_else(unknown));
    }
    let program = allocator.alloc(result.program);
    if let [Statement::FunctionDeclaration(function)] = program.body.as_slice()
        && function.span.end as usize == text.len()
        && let Some(body) = &function.body
    {
        return Ok(Parsed { body, mistakes });
    }
    let closed_at = program.body.first().map_or(0, |statement| offset(statement.span().end.saturating_sub(1)));
    Err(Mistake { offset: closed_at, message: "Unexpected token `}`".into() })
}
