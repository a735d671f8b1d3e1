//! `$state.user.name`, `$ext[n].get`, `globalThis.$emit`: chains of property names that start at a global of handlers.
//!
//! Types, parentheses and optional chaining in between make no difference. A chain through a call is none.
//!
//! Invariant: a path takes the same memory, and the same time to be copied, however long its chain is. Patterns copy one for
//! each of their properties.

use std::borrow::Cow;
use std::collections::VecDeque;

use oxc_ast::ast::*;
use oxc_span::GetSpan;

use super::fresh::is_global_object;
use super::scope::Scopes;

/// The global object's name, which is a property of it too.
pub(super) const GLOBAL_OBJECT: &str = "globalThis";

/// Where a path starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    State,
    Emit,
    View,
    Extensions,
    Crypto,
    Object,
    Reflect,
    Json,
}

impl Root {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "$state" => Self::State,
            "$emit" => Self::Emit,
            "$view" => Self::View,
            "$ext" => Self::Extensions,
            "crypto" => Self::Crypto,
            "Object" => Self::Object,
            "Reflect" => Self::Reflect,
            "JSON" => Self::Json,
            _ => return None,
        })
    }
}

/// Whether a name is one that leads to something: a capability, the global object, or what is looked at in a way of its own.
pub(super) fn is_root(name: &str) -> bool {
    Root::of(name).is_some() || is_global_object(name)
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

/// So many properties tell what a path is about; of those behind them only the last one matters, which may be a method.
const KEPT_STEPS: usize = 3;

/// A root and the properties from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path<'a> {
    pub(super) root: Root,
    /// The first properties.
    steps: [Option<Step<'a>>; KEPT_STEPS],
    /// The last one, if it is not among them.
    last: Option<Step<'a>>,
    length: usize,
    /// Where it stands in the wrapped text.
    pub(super) position: u32,
}

impl<'a> Path<'a> {
    /// A root alone.
    pub(super) fn of(root: Root, position: u32) -> Self {
        Self { root, steps: [const { None }; KEPT_STEPS], last: None, length: 0, position }
    }

    /// The same path, met elsewhere.
    pub(super) fn at(&self, position: u32) -> Self {
        Self { position, ..self.clone() }
    }

    /// How many properties it has.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn is_root(&self) -> bool {
        self.length == 0
    }

    pub(super) fn first(&self) -> Option<&Step<'a>> {
        self.get(0)
    }

    /// One of the first properties.
    pub(super) fn get(&self, index: usize) -> Option<&Step<'a>> {
        self.steps.get(index)?.as_ref()
    }

    /// The name of one of the first properties.
    pub(super) fn step(&self, index: usize) -> Option<&str> {
        self.get(index)?.name()
    }

    /// The name of the last property.
    pub(super) fn last(&self) -> Option<&str> {
        let step = self.last.as_ref().or_else(|| self.get(self.length.checked_sub(1)?));
        step.and_then(Step::name)
    }

    pub(super) fn then(&self, step: Step<'a>) -> Self {
        let mut longer = self.clone();
        longer.push(step);
        longer
    }

    /// Its first property alone.
    pub(super) fn head(&self) -> Self {
        let mut head = Self::of(self.root, self.position);
        self.first().cloned().into_iter().for_each(|step| head.push(step));
        head
    }

    fn push(&mut self, step: Step<'a>) {
        match self.steps.get_mut(self.length) {
            Some(place) => *place = Some(step),
            None => self.last = Some(step),
        }
        self.length += 1;
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
    let start = start_of(expression)?;
    let (mut path, global) = root_of(start.identifier, scopes)?;
    let end = if global { start.steps - start.own } else { start.steps };
    // seen from the end: the first ones come last, and one of them may be the root
    let mut first: VecDeque<Step<'a>> = VecDeque::new();
    let (mut seen, mut last) = (0, None);
    let mut at = expression;
    loop {
        let (inner, step) = match link(at) {
            Link::Same(inner) => (inner, None),
            Link::Property(object, name) => (object, Some(Step::Name(Cow::Borrowed(name)))),
            Link::Index(object, key) => (object, Some(key_of(key))),
            Link::Identifier(_) | Link::Other => break,
        };
        at = inner;
        let Some(step) = step else { continue };
        if seen == end {
            break;
        }
        if seen == 0 {
            last = Some(step.clone());
        }
        seen += 1;
        first.push_front(step);
        first.truncate(KEPT_STEPS + 1);
    }
    if global {
        path.root = Root::of(first.pop_front()?.name()?)?;
        seen -= 1;
    }
    let passed_over = seen - first.len();
    first.into_iter().for_each(|step| path.push(step));
    if passed_over > 0 {
        (path.length, path.last) = (path.length + passed_over, last);
    }
    path.position = expression.span().start;
    Some(path)
}

/// Where a chain starts.
struct Start<'e, 'a> {
    identifier: &'e IdentifierReference<'a>,
    /// How many properties the chain has.
    steps: usize,
    /// So many of the first ones are `globalThis`: on the global object these lead nowhere else.
    own: usize,
}

fn start_of<'e, 'a>(mut expression: &'e Expression<'a>) -> Option<Start<'e, 'a>> {
    let (mut steps, mut own) = (0, 0);
    loop {
        let (inner, is_own) = match link(expression) {
            Link::Same(inner) => {
                expression = inner;
                continue;
            }
            Link::Property(inner, name) => (inner, name == GLOBAL_OBJECT),
            Link::Index(inner, key) => (inner, key_of(key).name() == Some(GLOBAL_OBJECT)),
            Link::Identifier(identifier) => return Some(Start { identifier, steps, own }),
            Link::Other => return None,
        };
        (expression, steps) = (inner, steps + 1);
        own = if is_own { own + 1 } else { 0 };
    }
}

/// The path of a name, and whether it is `globalThis`, of which the next property is the root.
fn root_of<'a>(identifier: &IdentifierReference<'a>, scopes: &Scopes<'a>) -> Option<(Path<'a>, bool)> {
    let name = identifier.name.as_str();
    match scopes.lookup(name) {
        Some(binding) => Some((scopes.alias(binding)?.clone(), false)),
        None if is_global_object(name) => Some((Path::of(Root::Object, 0), true)),
        None => Some((Path::of(Root::of(name)?, 0), false)),
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
    let ours = matches!(root, Root::State | Root::Emit | Root::View | Root::Extensions | Root::Crypto);
    ours.then(|| Path::of(root, position))
}

/// The path of a name that nothing in the handler declares.
pub(super) fn path_of_name<'a>(identifier: &IdentifierReference<'a>) -> Option<Path<'a>> {
    Some(Path::of(Root::of(identifier.name.as_str())?, identifier.span.start))
}
