//! Promise style or stack style (CONTRACT 5), by what the author writes.
//!
//! A handler is promise style if its code uses promises by name, in code that never runs too: the keyword `await` or `async`, a
//! variable `Promise`, or a member `then`, `catch`, `finally` or `Promise` of something (`x.then`, `x?.then`, `x['then']`,
//! `({ then } = x)`). A label, the key of an object that is made, a string, a comment or a type of such a name is no use.
//! One that calls extensions and has none of these is stack style; one that calls none is promise style, which costs least.
//!
//! Nothing here follows a value. A call whose promise stands right where only a plain value makes sense is found by the walk
//! (file plain), for a warning; it decides nothing.

use nexus_protocol::message::SuspendMode;
use oxc_ast::AstKind;
use oxc_ast::ast::*;
use oxc_ast_visit::{Visit, walk};
use oxc_span::GetSpan;

use super::erase::{is_type_only, is_type_only_member};
use super::pace::Pace;
use super::path::{Step, key_of, property_key};
use crate::token::{StopCause, StopToken};

/// Why a handler has its style.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its code mentions promises: with this word, at this line and column.
    Mentions(&'static str, u32, u32),
    /// It calls extensions, and nothing in it mentions promises.
    CallsWithout,
    /// It calls no extension.
    CallsNone,
    /// It could not be read: in stack style both ways of writing work.
    Unread,
    /// Its client asked for the style.
    Asked,
}

impl Why {
    /// The style that follows. None: the client has said it.
    pub(super) fn mode(self) -> SuspendMode {
        match self {
            Self::Mentions(..) | Self::CallsNone | Self::Asked => SuspendMode::Await,
            Self::CallsWithout | Self::Unread => SuspendMode::Stack,
        }
    }

    /// In words, as a reason for the style.
    pub fn text(self) -> String {
        match self {
            Self::Mentions(word, line, column) => format!("`{word}` at {line}:{column}"),
            Self::CallsWithout => "calls extensions, and nothing in it mentions promises".into(),
            Self::CallsNone => "calls no extension".into(),
            Self::Unread => "could not be read; with this style both ways of writing work".into(),
            Self::Asked => "suspendMode asks for it".into(),
        }
    }
}

/// A word that makes a handler promise style, and where it stands in the wrapped text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mention {
    pub(super) word: &'static str,
    pub(super) position: u32,
}

/// The first mention of promises in a handler.
pub(super) fn mention(body: &FunctionBody<'_>, text: &str, token: &StopToken) -> Result<Option<Mention>, StopCause> {
    let mut search = Search { text, found: None, pace: Pace::new(token) };
    search.visit_function_body(body);
    search.pace.finish(search.found)
}

struct Search<'s, 't> {
    text: &'s str,
    found: Option<Mention>,
    pace: Pace<'t>,
}

impl Search<'_, '_> {
    fn found(&mut self, word: &'static str, position: u32) {
        if self.found.is_none_or(|first| position < first.position) {
            self.found = Some(Mention { word, position });
        }
    }

    /// A keyword that the tree knows of, but not where it stands: somewhere from here on, before that.
    fn keyword(&mut self, word: &'static str, from: u32, to: u32) {
        let between = self.text.get(from as usize..to as usize).unwrap_or_default();
        self.found(word, from + between.rfind(word).unwrap_or_default() as u32);
    }

    fn member(&mut self, name: &str, position: u32) {
        match name {
            "then" => self.found(".then", position),
            "catch" => self.found(".catch", position),
            "finally" => self.found(".finally", position),
            "Promise" => self.found("Promise", position),
            _ => {}
        }
    }

    /// What a pattern takes.
    fn key(&mut self, key: &PropertyKey<'_>) {
        if let Step::Name(name) = property_key(key) {
            self.member(&name, key.span().start);
        }
    }

    fn goes_on(&mut self) -> bool {
        self.found.is_none() && self.pace.goes_on()
    }
}

impl<'a> Visit<'a> for Search<'_, '_> {
    fn enter_node(&mut self, kind: AstKind<'a>) {
        match kind {
            AstKind::AwaitExpression(it) => self.found("await", it.span.start),
            AstKind::ForOfStatement(it) if it.r#await => self.keyword("await", it.span.start, it.left.span().start),
            AstKind::VariableDeclaration(it) if it.kind == VariableDeclarationKind::AwaitUsing => {
                self.found("await", it.span.start);
            }
            AstKind::ArrowFunctionExpression(it) if it.r#async => self.found("async", it.span.start),
            // of a method the keyword stands before its name
            AstKind::ObjectProperty(it) if it.method && is_async(&it.value) => {
                self.keyword("async", it.span.start, it.key.span().start);
            }
            AstKind::MethodDefinition(it) if it.value.r#async => {
                self.keyword("async", it.span.start, it.key.span().start);
            }
            AstKind::Function(it) if it.r#async => self.found("async", it.span.start),
            AstKind::IdentifierReference(it) if it.name == "Promise" => self.found("Promise", it.span.start),
            AstKind::BindingIdentifier(it) if it.name == "Promise" => self.found("Promise", it.span.start),
            AstKind::BindingProperty(it) => self.key(&it.key),
            AstKind::AssignmentTargetPropertyProperty(it) => self.key(&it.name),
            AstKind::AssignmentTargetPropertyIdentifier(it) => {
                self.member(it.binding.name.as_str(), it.binding.span.start);
            }
            _ => {}
        }
    }

    fn visit_static_member_expression(&mut self, it: &StaticMemberExpression<'a>) {
        walk::walk_static_member_expression(self, it);
        self.member(it.property.name.as_str(), it.property.span.start.saturating_sub(1));
    }
    fn visit_computed_member_expression(&mut self, it: &ComputedMemberExpression<'a>) {
        walk::walk_computed_member_expression(self, it);
        if let Step::Name(name) = key_of(&it.expression) {
            self.member(&name, it.expression.span().start);
        }
    }

    fn visit_expression(&mut self, it: &Expression<'a>) {
        if self.goes_on() {
            walk::walk_expression(self, it);
        }
    }
    fn visit_statement(&mut self, it: &Statement<'a>) {
        if self.goes_on() && !is_type_only(it) {
            walk::walk_statement(self, it);
        }
    }
    fn visit_class_element(&mut self, it: &ClassElement<'a>) {
        if self.goes_on() && !is_type_only_member(it) {
            walk::walk_class_element(self, it);
        }
    }

    fn visit_ts_type(&mut self, _: &TSType<'a>) {}
    fn visit_ts_type_annotation(&mut self, _: &TSTypeAnnotation<'a>) {}
    fn visit_ts_type_parameter_declaration(&mut self, _: &TSTypeParameterDeclaration<'a>) {}
    fn visit_ts_type_parameter_instantiation(&mut self, _: &TSTypeParameterInstantiation<'a>) {}
    fn visit_ts_class_implements(&mut self, _: &TSClassImplements<'a>) {}
}

fn is_async(value: &Expression<'_>) -> bool {
    matches!(value, Expression::FunctionExpression(it) if it.r#async)
}
