//! `$state.user.name`, `$ext[n].get`, `globalThis.$emit`: chains of property names that start at a global of handlers.
//!
//! Types, parentheses and optional chaining in between make no difference. A chain through a call is none.

use std::borrow::Cow;

use oxc_ast::ast::*;
use oxc_span::GetSpan;

use super::scope::Scopes;

/// Where a path starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    State,
    Emit,
    View,
    Extensions,
    Crypto,
    Promise,
    Object,
    Reflect,
    Json,
    Array,
}

impl Root {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "$state" => Self::State,
            "$emit" => Self::Emit,
            "$view" => Self::View,
            "$ext" => Self::Extensions,
            "crypto" => Self::Crypto,
            "Promise" => Self::Promise,
            "Object" => Self::Object,
            "Reflect" => Self::Reflect,
            "JSON" => Self::Json,
            "Array" => Self::Array,
            _ => return None,
        })
    }
}

/// One property of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    Name(Cow<'a, str>),
    /// `[expression]`
    Dynamic,
}

impl Step<'_> {
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Dynamic => None,
        }
    }
}

/// A root and the properties from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path<'a> {
    pub(super) root: Root,
    pub(super) steps: Vec<Step<'a>>,
    /// Where it stands in the wrapped text.
    pub(super) position: u32,
}

impl<'a> Path<'a> {
    pub(super) fn step(&self, index: usize) -> Option<&str> {
        self.steps.get(index)?.name()
    }

    pub(super) fn then(&self, step: Step<'a>) -> Self {
        let mut longer = self.clone();
        longer.steps.push(step);
        longer
    }
}

/// What an expression is, seen from its end.
pub(super) enum Link<'e, 'a> {
    /// The same value as the inner expression.
    Same(&'e Expression<'a>),
    Property(&'e Expression<'a>, &'a str),
    Index(&'e Expression<'a>, &'e Expression<'a>),
    Identifier(&'e IdentifierReference<'a>),
    Other,
}

pub(super) fn link<'e, 'a>(expression: &'e Expression<'a>) -> Link<'e, 'a> {
    match expression {
        Expression::ParenthesizedExpression(it) => Link::Same(&it.expression),
        Expression::TSAsExpression(it) => Link::Same(&it.expression),
        Expression::TSSatisfiesExpression(it) => Link::Same(&it.expression),
        Expression::TSNonNullExpression(it) => Link::Same(&it.expression),
        Expression::TSInstantiationExpression(it) => Link::Same(&it.expression),
        Expression::Identifier(it) => Link::Identifier(it),
        Expression::StaticMemberExpression(it) => Link::Property(&it.object, it.property.name.as_str()),
        Expression::ComputedMemberExpression(it) => Link::Index(&it.object, &it.expression),
        Expression::ChainExpression(it) => match &it.expression {
            ChainElement::StaticMemberExpression(it) => Link::Property(&it.object, it.property.name.as_str()),
            ChainElement::ComputedMemberExpression(it) => Link::Index(&it.object, &it.expression),
            ChainElement::TSNonNullExpression(it) => Link::Same(&it.expression),
            _ => Link::Other,
        },
        _ => Link::Other,
    }
}

/// The expression within types and parentheses.
pub(super) fn peel<'e, 'a>(mut expression: &'e Expression<'a>) -> &'e Expression<'a> {
    while let Link::Same(inner) = link(expression) {
        expression = inner;
    }
    expression
}

/// The path that an expression spells.
pub(super) fn path_of<'a>(expression: &Expression<'a>, scopes: &Scopes<'a>) -> Option<Path<'a>> {
    let (mut path, global) = root_of(root_identifier(expression)?, scopes)?;
    let mut steps = Vec::new();
    let mut at = expression;
    loop {
        at = match link(at) {
            Link::Same(inner) => inner,
            Link::Property(object, name) => {
                steps.push(Step::Name(Cow::Borrowed(name)));
                object
            }
            Link::Index(object, key) => {
                steps.push(key_of(key));
                object
            }
            Link::Identifier(_) | Link::Other => break,
        };
    }
    if global {
        let first = steps.pop()?;
        path.root = Root::of(first.name()?)?;
    }
    steps.reverse();
    path.steps.append(&mut steps);
    path.position = expression.span().start;
    Some(path)
}

fn root_identifier<'e, 'a>(mut expression: &'e Expression<'a>) -> Option<&'e IdentifierReference<'a>> {
    loop {
        expression = match link(expression) {
            Link::Same(inner) | Link::Property(inner, _) | Link::Index(inner, _) => inner,
            Link::Identifier(identifier) => return Some(identifier),
            Link::Other => return None,
        };
    }
}

/// The path of a name, and whether it is `globalThis`, of which the next property is the root.
fn root_of<'a>(identifier: &IdentifierReference<'a>, scopes: &Scopes<'a>) -> Option<(Path<'a>, bool)> {
    let name = identifier.name.as_str();
    match scopes.lookup(name) {
        Some(binding) => Some((scopes.alias(binding)?.clone(), false)),
        None if name == "globalThis" => Some((Path { root: Root::Object, steps: Vec::new(), position: 0 }, true)),
        None => Some((Path { root: Root::of(name)?, steps: Vec::new(), position: 0 }, false)),
    }
}

/// A property name, if it is written out.
pub(super) fn key_of<'a>(key: &Expression<'a>) -> Step<'a> {
    match peel(key) {
        Expression::StringLiteral(it) if !it.lone_surrogates => Step::Name(Cow::Borrowed(it.value.as_str())),
        Expression::NumericLiteral(it) if it.value.fract() == 0.0 && it.value.abs() < 1e15 => {
            Step::Name(Cow::Owned(format!("{}", it.value.abs() as u64))).filter_negative(it.value)
        }
        Expression::TemplateLiteral(it) => match (it.quasis.as_slice(), it.expressions.is_empty()) {
            ([quasi], true) => match quasi.value.cooked {
                Some(text) if !quasi.lone_surrogates => Step::Name(Cow::Borrowed(text.as_str())),
                _ => Step::Dynamic,
            },
            _ => Step::Dynamic,
        },
        _ => Step::Dynamic,
    }
}

impl Step<'_> {
    /// A literal is never negative, but `-0` and its kind are not worth a mistake.
    fn filter_negative(self, value: f64) -> Self {
        if value.is_sign_negative() { Self::Dynamic } else { self }
    }
}

/// The key of an object literal's or pattern's property.
pub(super) fn property_key<'a>(key: &PropertyKey<'a>) -> Step<'a> {
    match key {
        PropertyKey::StaticIdentifier(it) => Step::Name(Cow::Borrowed(it.name.as_str())),
        PropertyKey::PrivateIdentifier(_) => Step::Dynamic,
        other => other.as_expression().map_or(Step::Dynamic, key_of),
    }
}

/// The path of a property that has the name of a global: of an object that may be the global one (`this.$ext`).
pub(super) fn path_of_property<'a>(name: &str, position: u32) -> Option<Path<'a>> {
    let root = Root::of(name)?;
    let ours = matches!(root, Root::State | Root::Emit | Root::View | Root::Extensions);
    ours.then_some(Path { root, steps: Vec::new(), position })
}

/// The path of a name that nothing in the handler declares.
pub(super) fn path_of_name<'a>(identifier: &IdentifierReference<'a>) -> Option<Path<'a>> {
    let root = Root::of(identifier.name.as_str())?;
    Some(Path { root, steps: Vec::new(), position: identifier.span.start })
}
