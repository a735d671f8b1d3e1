//! `import type { User } from './types'` at the head of a handler.
//!
//! A handler is a function body, where nothing can be imported; but for an editor's sake it may start with imports of
//! types, which are erased before it is parsed. Any other import is left where it is, to be refused with advice.
//!
//! Invariant: only the head is parsed as a module, so that what follows may be sloppy code.

use oxc_allocator::Allocator;
use oxc_ast::ast::{ImportDeclaration, ImportDeclarationSpecifier, ImportOrExportKind, Statement};
use oxc_parser::Parser;
use oxc_span::SourceType;

/// The handler without its leading imports of types; `None` if it has none.
pub(super) fn erase_type_imports(allocator: &Allocator, source: &str) -> Option<String> {
    let head = source.get(..imports_end(source)).filter(|head| !head.is_empty())?;
    let parsed = Parser::new(allocator, head, SourceType::ts()).parse();
    let types = parsed.program.body.iter().map_while(|statement| match statement {
        Statement::ImportDeclaration(it) if is_of_types(it) => Some(it.span),
        _ => None,
    });
    super::erase::blank(source, types)
}

/// `import type ...`, or `import { type A, type B } ...`.
fn is_of_types(it: &ImportDeclaration<'_>) -> bool {
    let is_type = |specifier: &ImportDeclarationSpecifier<'_>| match specifier {
        ImportDeclarationSpecifier::ImportSpecifier(it) => it.import_kind == ImportOrExportKind::Type,
        _ => false,
    };
    let named = it.specifiers.as_ref();
    it.import_kind == ImportOrExportKind::Type
        || named.is_some_and(|named| !named.is_empty() && named.iter().all(is_type))
}

/// Where the leading imports end: each is words, braces and commas, then the name of a module.
fn imports_end(source: &str) -> usize {
    let mut end = 0;
    loop {
        let Some(rest) = source.get(end..).map(without_comments) else { return end };
        let Some(after) = rest.strip_prefix("import").filter(|rest| !rest.starts_with(is_word)) else { return end };
        let Some(after) = module_name_end(after) else { return end };
        let behind = without_comments(after);
        end = source.len() - behind.strip_prefix(';').unwrap_or(after).len();
    }
}

/// What follows the name of the module in an import.
fn module_name_end(mut rest: &str) -> Option<&str> {
    loop {
        rest = without_comments(rest);
        let first = rest.chars().next()?;
        match first {
            '\'' | '"' => {
                let inner = rest.get(1..)?;
                let end = inner.find([first, '\n'])?;
                return inner.get(end..)?.strip_prefix(first);
            }
            '{' | '}' | ',' | '*' => rest = rest.get(1..)?,
            _ if is_word(first) => rest = rest.trim_start_matches(is_word),
            _ => return None,
        }
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '$')
}

fn without_comments(mut rest: &str) -> &str {
    loop {
        rest = rest.trim_start();
        if let Some(comment) = rest.strip_prefix("//") {
            rest = comment.find(['\n', '\r']).and_then(|end| comment.get(end..)).unwrap_or_default();
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").map_or("", |(_, rest)| rest);
        } else {
            return rest;
        }
    }
}
