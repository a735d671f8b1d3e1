//! `import type { User } from './types'` at the head of a handler.
//!
//! A handler is a function body, where nothing can be imported; but for an editor's sake it may start with imports of
//! types, which are erased before it is parsed. Any other import is left where it is, for QuickJS to refuse.

use oxc_allocator::Allocator;
use oxc_ast::ast::{ImportOrExportKind, Statement};
use oxc_parser::{ParseOptions, Parser};
use oxc_span::SourceType;

/// The handler without its leading imports of types; `None` if it has none.
pub(super) fn erase_type_imports(allocator: &Allocator, source: &str) -> Option<String> {
    if !starts_with_import(source) {
        return None;
    }
    let options = ParseOptions { allow_return_outside_function: true, ..ParseOptions::default() };
    let parsed = Parser::new(allocator, source, SourceType::ts()).with_options(options).parse();
    let types = parsed.program.body.iter().map_while(|statement| match statement {
        Statement::ImportDeclaration(it) if it.import_kind == ImportOrExportKind::Type => Some(it.span),
        _ => None,
    });
    super::erase::blank(source, types)
}

/// Whether the first word of the handler is `import`.
fn starts_with_import(source: &str) -> bool {
    let mut rest = source;
    loop {
        rest = rest.trim_start();
        if let Some(comment) = rest.strip_prefix("//") {
            rest = comment.find(['\n', '\r']).and_then(|end| comment.get(end..)).unwrap_or_default();
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").map_or("", |(_, rest)| rest);
        } else {
            return rest.strip_prefix("import").is_some_and(|rest| rest.starts_with([' ', '\t', '\n', '\r', '/']));
        }
    }
}
