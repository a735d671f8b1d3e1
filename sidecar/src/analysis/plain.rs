//! Calls whose promise is used as a plain value: `$ext.a.b().name`, `$ext.a.b() + 1`, `if ($ext.a.b())`.
//!
//! And more that is not what it looks like: calls of what makes code of text, type arguments in plain JavaScript, which are
//! comparisons there, and what `RegExp` is asked of the last match.
//!
//! Only what is certain: the call itself is the operand, the object, the condition, whatever is around it in parentheses.
//! In stack style all of this is right, and nobody looks at what was found here.

use oxc_ast::ast::*;
use oxc_span::{GetSpan, Span};
use oxc_syntax::operator::BinaryOperator;

use super::path::{Path, Root, Step, peel};
use super::uses::is_extension_query;
use super::walk::Walker;

/// Something that is not what it looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Odd {
    pub(super) kind: OddKind,
    pub(super) position: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OddKind {
    /// `eval(...)`, `new Function(...)`
    TextAsCode(&'static str),
    /// `await (x)` in a function that is not async
    Await,
    /// `f<T>(x)`
    TypeArguments,
    /// `RegExp.$1`
    LastMatch,
}

impl OddKind {
    pub(super) fn message(self) -> String {
        match self {
            Self::TextAsCode(name) => {
                format!("`{name}` throws here: no text becomes code; write the code into the handler itself")
            }
            Self::Await => {
                "`await` is only for async functions, and calls a function of that name here: write `async` \
                            before the function that it stands in"
                    .into()
            }
            Self::TypeArguments => {
                "this is two comparisons, since the handler is plain JavaScript otherwise; if a type \
                                    argument is meant, leave it out"
                    .into()
            }
            Self::LastMatch => {
                "`RegExp` does not keep what was matched last, and has no such property: take it from what `match` or `exec` gives".into()
            }
        }
    }
}

/// Of each handler.
const MAX_ODD: usize = 4;
/// So many are told of; more make nothing clearer.
const MAX_PLAIN_USES: usize = 16;
/// Of what is quoted of a call.
const MAX_QUOTED_CHARS: usize = 60;

/// One of them. Positions are those of the wrapped text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlainUse {
    /// `$ext.a.b()`
    pub(super) call: String,
    pub(super) position: u32,
    /// An error of this use points to a place in here.
    pub(super) end: u32,
}

impl<'a> Walker<'a, '_> {
    /// A value is used as it is, in `around`.
    pub(super) fn plain_use(&mut self, value: &Expression<'a>, around: Span) {
        // in a `with` any name may be another's
        if self.plain.len() >= MAX_PLAIN_USES || self.within.is_some() {
            return;
        }
        let value = peel(value);
        let call = match value {
            Expression::CallExpression(it) => it,
            Expression::ChainExpression(it) => match &it.expression {
                ChainElement::CallExpression(it) => it,
                _ => return,
            },
            _ => return,
        };
        let Some(path) = self.path(&call.callee).filter(is_call_of_extension) else { return };
        let names = path.step(0).zip(path.step(1));
        let call = match names {
            Some((extension, method)) => format!("$ext.{extension}.{method}()"),
            None => "$ext[...]()".to_owned(),
        };
        let call = if call.chars().count() > MAX_QUOTED_CHARS { "$ext...()".to_owned() } else { call };
        let position = value.span().start;
        let chain = if self.chain.start == position { self.chain.end } else { 0 };
        self.plain.push(PlainUse { call, position, end: around.end.max(chain) });
    }

    fn odd(&mut self, kind: OddKind, position: u32) {
        if self.odd.len() < MAX_ODD {
            self.odd.push(Odd { kind, position });
        }
    }

    /// A name that nothing declares is called.
    pub(super) fn odd_call(&mut self, name: &str, position: u32) {
        match name {
            "eval" => self.odd(OddKind::TextAsCode("eval"), position),
            "await" => self.odd(OddKind::Await, position),
            "Function" => self.odd(OddKind::TextAsCode("Function"), position),
            _ => {}
        }
    }

    /// `f < T > (x)`, which in TypeScript is a call.
    pub(super) fn like_type_arguments(&mut self, it: &BinaryExpression<'a>) {
        if it.operator == BinaryOperator::GreaterThan
            && let Expression::BinaryExpression(left) = &it.left
            && left.operator == BinaryOperator::LessThan
            && matches!(it.right, Expression::ParenthesizedExpression(_))
        {
            self.odd(OddKind::TypeArguments, it.span.start);
        }
    }

    /// A property of `start` is read, in a chain.
    pub(super) fn read_from(&mut self, start: &Expression<'a>, name: Option<&str>, chain: Span) {
        if let Expression::Identifier(it) = peel(start)
            && it.name == "RegExp"
            && name.is_some_and(is_of_last_match)
            && self.within.is_none()
            && self.scopes.lookup("RegExp").is_none()
        {
            self.odd(OddKind::LastMatch, it.span.start);
        }
        // a name that is not known may be one of these
        if !matches!(name, None | Some("then" | "catch" | "finally")) {
            self.plain_use(start, chain);
        }
    }

    /// Properties are taken from `value`.
    pub(super) fn taken_from(&mut self, value: &Expression<'a>, pattern: &BindingPattern<'a>) {
        let takes = match pattern {
            BindingPattern::ObjectPattern(it) => it.properties.iter().any(|property| {
                let key = super::path::property_key(&property.key);
                !matches!(key.name(), None | Some("then" | "catch" | "finally"))
            }),
            BindingPattern::ArrayPattern(_) => true,
            _ => false,
        };
        if takes {
            self.plain_use(value, value.span());
        }
    }

    /// A chain of properties and calls is about to be looked at, or a part of it that begins where it does.
    pub(super) fn in_chain(&mut self, span: Span) {
        if self.chain.start != span.start || self.chain.end < span.end {
            self.chain = span;
        }
    }
}

/// What old programs ask of `RegExp` itself.
fn is_of_last_match(name: &str) -> bool {
    matches!(name, "lastMatch" | "lastParen" | "leftContext" | "rightContext" | "input")
        || matches!(name.as_bytes(), [b'$', b'1'..=b'9' | b'&' | b'+' | b'`' | b'\'' | b'_'])
}

fn is_call_of_extension(path: &Path<'_>) -> bool {
    path.root == Root::Extensions
        && path.len() == 2
        && path.first().map(Step::name).is_some_and(|name| !name.is_some_and(is_extension_query))
        // these are not there, whatever extensions there are
        && !(0..2).any(|at| matches!(path.step(at), Some("then" | "toJSON")))
}
