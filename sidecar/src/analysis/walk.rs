//! Walks a handler once, and notes what it needs, where values of the state go, and calls whose promise is used as a value.
//!
//! Every expression is visited with what becomes of its value (`Want`). Chains that start at a global go to `uses` and
//! `calls` as a whole, so that `$state.user.name = x` is one write, not a read and an assignment to something.
//!
//! A need is certain in code that runs whenever the handler does, as far as can be said: not in a branch, a loop's body, a
//! function, a `try`, nor behind a statement that may have ended the handler. That no expression throws is assumed.
//!
//! Invariant: each expression is visited once, and a chain of properties is looked along at most three times.
//! What it does not do: follow what a variable means, but for constants that name a part of `$ext`. Where a capability, or the
//! global object, goes as a value, everything is done with it that could be.

use std::borrow::Cow;

use nexus_protocol::message::SuspendMode;
use oxc_ast::ast::*;
use oxc_ast_visit::{Visit, walk};
use oxc_span::{GetSpan, Span};
use oxc_syntax::operator::{BinaryOperator, LogicalOperator, UnaryOperator};

use super::flow::{Flow, Place};
use super::fresh::{Fresh, fresh, is_builtin, is_global_object};
use super::needs::{Kind, Need, Needs};
use super::pace::Pace;
use super::path::{GLOBAL_OBJECT, Link, Path, Step, key_of, link, path_of, peel, property_key};
use super::plain::{Odd, PlainUse};
use super::scope::Scopes;
use crate::token::{StopCause, StopToken};

/// What becomes of an expression's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// It goes there.
    Into(Place),
    /// It is used up: as an operand, in a text, as data that is copied.
    Plain,
    /// Only its truth, type or identity is looked at.
    Test,
    /// Nothing.
    Unused,
}

/// The state of the walk.
pub(super) struct Walker<'a, 't> {
    pub(super) needs: Needs,
    pub(super) scopes: Scopes<'a>,
    pub(super) flow: Flow<'a>,
    /// Calls whose promise would be used as a plain value.
    pub(super) plain: Vec<PlainUse>,
    /// What is not what it looks like.
    pub(super) odd: Vec<Odd>,
    /// The chain of properties and calls that is being looked at.
    pub(super) chain: Span,
    /// The call whose promise the handler itself waits for.
    pub(super) awaited: Option<Span>,
    /// As far as it is known: what calls give.
    pub(super) mode: SuspendMode,
    /// What goes in and out of the function that is looked at. None: it is the handler itself.
    pub(super) returns: Option<Place>,
    /// What `this` and `arguments` are. None: the handler's own.
    pub(super) this: Option<Place>,
    pub(super) strict: bool,
    /// The function that `this` belongs to is strict.
    pub(super) strict_this: bool,
    /// The chain with a `?.` that is being looked at.
    pub(super) optional: Option<Span>,
    /// What `with` statements around name.
    pub(super) within: Option<Place>,
    /// What is being written may be left as it is.
    pub(super) perhaps_written: bool,
    /// Conditions around the place that is looked at.
    pub(super) doubts: u32,
    /// The handler may have ended before.
    ended: bool,
    pub(super) pace: Pace<'t>,
}

/// What a walk has found.
pub(super) struct Found {
    pub(super) needs: Needs,
    pub(super) plain: Vec<PlainUse>,
    pub(super) odd: Vec<Odd>,
}

/// What a handler needs whose calls suspend in this way.
pub(super) fn walk(body: &FunctionBody<'_>, mode: SuspendMode, token: &StopToken) -> Result<Found, StopCause> {
    let mut walker = Walker {
        needs: Needs::default(),
        scopes: Scopes::default(),
        flow: Flow::new(),
        plain: Vec::new(),
        odd: Vec::new(),
        chain: Span::new(0, 0),
        awaited: None,
        mode,
        returns: None,
        this: None,
        strict: is_strict(body),
        strict_this: is_strict(body),
        optional: None,
        within: None,
        perhaps_written: false,
        doubts: 0,
        ended: false,
        pace: Pace::new(token),
    };
    // data of the handler's own
    walker.scopes.enter(vec!["$args", "$scope"]);
    let names = walker.hoisted(&body.statements);
    walker.scopes.enter(names);
    walker.declare_aliases(&body.statements);
    walker.visit_statements(&body.statements);
    let Walker { mut needs, mut flow, pace, plain, odd, .. } = walker;
    for position in flow.called_methods() {
        needs.all(Kind::StateWrite, Need { position, certain: false });
    }
    for (key, position) in flow.written_keys() {
        needs.key(Kind::StateWrite, &key, Need { position, certain: false });
    }
    needs.doubt_reads_of_what_is_written();
    pace.finish(Found { needs, plain, odd })
}

pub(super) fn is_strict(body: &FunctionBody<'_>) -> bool {
    body.directives.iter().any(|directive| directive.directive == "use strict")
}

/// What is written in a chain of properties.
#[derive(Default)]
struct Names<'a> {
    /// The first one but for `globalThis`, if it is written out.
    first: Option<Cow<'a, str>>,
    any_dynamic: bool,
}

impl<'a> Walker<'a, '_> {
    pub(super) fn path(&self, expression: &Expression<'a>) -> Option<Path<'a>> {
        path_of(expression, &self.scopes)
    }

    pub(super) fn fresh(&self, expression: &Expression<'a>) -> Fresh {
        fresh(expression, &self.scopes)
    }

    // ---- how certain ----

    pub(super) fn certainly(&self, position: u32) -> Need {
        Need { position, certain: self.doubts == 0 && !self.ended }
    }

    /// What runs in here may not run.
    pub(super) fn perhaps<T>(&mut self, look: impl FnOnce(&mut Self) -> T) -> T {
        self.doubts += 1;
        let seen = look(self);
        self.doubts -= 1;
        seen
    }

    /// What comes behind may not run.
    pub(super) fn may_end(&mut self) {
        self.ended |= self.returns.is_none();
    }

    /// The place that a value goes to; one of its own if it goes nowhere.
    pub(super) fn place_of(&mut self, want: Want) -> Place {
        match want {
            Want::Into(place) => place,
            Want::Plain | Want::Test | Want::Unused => self.flow.place(),
        }
    }

    /// What is at a place is wanted.
    pub(super) fn give(&mut self, place: Place, want: Want) {
        if let Want::Into(to) = want {
            self.flow.join(place, to);
        }
    }

    // ---- expressions ----

    pub(super) fn expression(&mut self, expression: &Expression<'a>, want: Want) {
        if !self.pace.goes_on() {
            return;
        }
        match expression {
            Expression::AwaitExpression(it) => {
                self.awaited = Some(peel(&it.argument).span());
                // a promise that rejects is a value that is thrown
                let place = self.place_of(want);
                self.flow.may_reject(place);
                self.expression(&it.argument, if self.path(&it.argument).is_some() { want } else { Want::Into(place) });
            }
            Expression::ConditionalExpression(it) => {
                self.plain_use(&it.test, expression.span());
                self.expression(&it.test, Want::Test);
                self.perhaps(|is| {
                    is.expression(&it.consequent, want);
                    is.expression(&it.alternate, want);
                });
            }
            Expression::LogicalExpression(it) => {
                self.plain_use(&it.left, expression.span());
                // what `&&` leaves of its left side is no object
                let left = match (it.operator, want) {
                    (LogicalOperator::And, _) => Want::Test,
                    (_, Want::Into(_)) => want,
                    _ => Want::Plain,
                };
                self.expression(&it.left, left);
                self.perhaps(|is| is.expression(&it.right, want));
            }
            Expression::SequenceExpression(it) => {
                let last = it.expressions.len().saturating_sub(1);
                for (index, part) in it.expressions.iter().enumerate() {
                    self.expression(part, if index == last { want } else { Want::Unused });
                }
            }
            Expression::UnaryExpression(it) => match it.operator {
                UnaryOperator::Void | UnaryOperator::Typeof => self.expression(&it.argument, Want::Unused),
                UnaryOperator::LogicalNot => {
                    self.plain_use(&it.argument, it.span);
                    self.expression(&it.argument, Want::Test);
                }
                UnaryOperator::Delete => self.delete(&it.argument),
                _ => {
                    self.plain_use(&it.argument, it.span);
                    self.expression(&it.argument, Want::Plain);
                }
            },
            Expression::BinaryExpression(it) => self.binary(it),
            Expression::TemplateLiteral(it) => {
                for part in &it.expressions {
                    self.plain_use(part, it.span);
                    self.expression(part, Want::Plain);
                }
            }
            Expression::YieldExpression(it) => {
                let place = self.returns.unwrap_or(self.flow.undeclared);
                if let Some(argument) = &it.argument {
                    self.expression(argument, Want::Into(place));
                }
                self.give(place, want);
            }
            Expression::ArrowFunctionExpression(it) => {
                let place = self.place_of(want);
                self.arrow(it, place);
            }
            Expression::FunctionExpression(it) => {
                let place = self.place_of(want);
                self.any_function(it, place);
            }
            Expression::ClassExpression(it) => {
                let place = self.place_of(want);
                self.class(it, place);
            }
            Expression::ThisExpression(it) => self.this(it.span.start, want),
            Expression::ArrayExpression(it) => self.array(it, want),
            Expression::ObjectExpression(it) => self.object(it, want),
            Expression::CallExpression(it) => self.call(it, want),
            Expression::NewExpression(it) => self.construct(it, want),
            Expression::TaggedTemplateExpression(it) => self.tagged(it, want),
            Expression::AssignmentExpression(it) => self.assignment(it, want),
            Expression::UpdateExpression(it) => self.simple_target(&it.argument, true, Want::Plain),
            Expression::ChainExpression(chain) => {
                let outer = self.optional.replace(chain.span);
                match &chain.expression {
                    ChainElement::CallExpression(it) => self.call(it, want),
                    _ => self.chain(expression, want),
                }
                self.optional = outer;
            }
            _ => self.chain(expression, want),
        }
    }

    /// Names, properties, and what is written around them; the rest has no part in this.
    fn chain(&mut self, expression: &Expression<'a>, want: Want) {
        match link(expression) {
            Link::Same(inner) => self.expression(inner, want),
            Link::Identifier(it) => self.identifier(it, want),
            Link::Property(..) | Link::Index(..) => {
                self.in_chain(expression.span());
                match self.path(expression) {
                    Some(path) => {
                        self.keys(expression);
                        self.path_value(&path, want);
                    }
                    None => self.plain_chain(expression, want),
                }
            }
            Link::Other => match expression {
                Expression::PrivateFieldExpression(it) => self.expression(&it.object, want),
                Expression::Super(_) => {
                    let place = self.this.unwrap_or(self.flow.undeclared);
                    self.give(place, want);
                }
                other => walk::walk_expression(self, other),
            },
        }
    }

    /// A chain of properties that does not start at a global.
    fn plain_chain(&mut self, expression: &Expression<'a>, want: Want) {
        let names = self.names_of(expression);
        let start = self.keys(expression);
        self.read_from(start, names.first.as_deref(), expression.span());
        self.flow.anything |= names.any_dynamic && self.is_builtin(start);
        // properties of the global object, if that is what it is, are known by their names
        if let Some(first) = names.first.filter(|_| self.is_global_object(start)) {
            self.hidden_global(&first, expression.span().start);
            self.give_global(want);
        } else {
            self.expression(start, if let Want::Into(_) = want { want } else { Want::Plain });
        }
    }

    /// Whether an expression is a part of the language, such as a list of its methods.
    fn is_builtin(&self, expression: &Expression<'a>) -> bool {
        match peel(expression) {
            Expression::Identifier(it) => {
                is_builtin(it.name.as_str()) && self.scopes.lookup(it.name.as_str()).is_none()
            }
            other => other.is_literal() || matches!(other, Expression::ArrayExpression(_)),
        }
    }

    /// The names in a chain of properties.
    fn names_of(&mut self, mut expression: &Expression<'a>) -> Names<'a> {
        let mut names = Names::default();
        loop {
            let (inner, name) = match link(expression) {
                Link::Same(inner) => {
                    expression = inner;
                    continue;
                }
                Link::Property(inner, name) => (inner, Some(Cow::Borrowed(name))),
                Link::Index(inner, key) => match key_of(key) {
                    Step::Name(name) => (inner, Some(name)),
                    Step::Dynamic => (inner, None),
                },
                Link::Identifier(_) | Link::Other => return names,
            };
            match &name {
                Some(name) => self.wild(name),
                None => names.any_dynamic = true,
            }
            // on the global object it leads nowhere else
            if name.as_deref() != Some(GLOBAL_OBJECT) {
                names.first = name;
            }
            expression = inner;
        }
    }

    /// `this.$ext`: what is done with it is not looked at.
    pub(super) fn hidden_global(&mut self, name: &str, position: u32) {
        // which give the object itself
        if matches!(name, GLOBAL_OBJECT | "valueOf") {
            self.needs.everything(position);
        }
        if let Some(path) = super::path::path_of_property(name, position) {
            let anywhere = self.flow.undeclared;
            self.perhaps(|is| is.path_value(&path, Want::Into(anywhere)));
        }
    }

    /// A method that writes, where it is not called on the spot: nobody knows on what it will be.
    pub(super) fn wild(&mut self, name: &str) {
        self.flow.anything |= super::fresh::writes_state_values(name);
    }

    /// The computed keys of a chain. Returns what it starts at.
    pub(super) fn keys<'e>(&mut self, mut expression: &'e Expression<'a>) -> &'e Expression<'a> {
        loop {
            expression = match link(expression) {
                Link::Same(inner) | Link::Property(inner, _) => inner,
                Link::Index(inner, key) => {
                    self.plain_use(key, expression.span());
                    match self.optional {
                        Some(chain) if chain.start == expression.span().start => {
                            self.perhaps(|is| is.expression(key, Want::Plain));
                        }
                        _ => self.expression(key, Want::Plain),
                    }
                    inner
                }
                Link::Identifier(_) | Link::Other => return expression,
            };
        }
    }

    pub(super) fn identifier(&mut self, it: &IdentifierReference<'a>, want: Want) {
        let name = it.name.as_str();
        if let Some(place) = self.within {
            self.give(place, want);
        }
        match self.scopes.lookup(name) {
            Some(binding) => {
                if let Some(path) = self.scopes.alias(binding) {
                    let path = path.at(it.span.start);
                    return self.path_value(&path, want);
                }
                let place = self.flow.of(binding);
                self.give(place, want);
            }
            None => {
                if let Some(path) = super::path::path_of_name(it) {
                    self.path_value(&path, want);
                } else if is_global_object(name) {
                    self.global_object(it.span.start, want);
                } else if name == "arguments"
                    && let Some(place) = self.this
                {
                    self.give(place, want);
                } else if !is_builtin(name) {
                    self.give(self.flow.undeclared, want);
                    self.unknown_name(name);
                }
            }
        }
    }

    /// A name that nothing declares: to ask for it is an error, unless somebody gave the global object such a property.
    pub(super) fn unknown_name(&mut self, name: &str) {
        if !matches!(name, "arguments" | "await" | "eval") {
            self.may_end();
        }
    }

    fn this(&mut self, position: u32, want: Want) {
        if let Some(place) = self.this {
            self.give(place, want);
        }
        if self.this.is_none() || !self.strict_this {
            self.global_object(position, want);
        }
    }

    /// The global object goes somewhere: whatever it has may be used there.
    pub(super) fn global_object(&mut self, position: u32, want: Want) {
        if matches!(want, Want::Test | Want::Unused) {
            return;
        }
        self.needs.everything(position);
        self.give(self.flow.undeclared, want);
    }

    /// Whether an expression is, or may be, the global object.
    pub(super) fn is_global_object(&self, mut expression: &Expression<'a>) -> bool {
        loop {
            expression = match link(expression) {
                Link::Same(inner) => inner,
                Link::Property(inner, GLOBAL_OBJECT) => inner,
                Link::Index(inner, key) if key_of(key).name() == Some(GLOBAL_OBJECT) => inner,
                Link::Identifier(it) => {
                    let name = it.name.as_str();
                    return is_global_object(name) && self.scopes.lookup(name).is_none();
                }
                _ => return self.is_global_this(expression),
            };
        }
    }

    /// A `this` that may be the global object: what `this` is follows the function that it belongs to, which no arrow is.
    fn is_global_this(&self, expression: &Expression<'a>) -> bool {
        matches!(expression, Expression::ThisExpression(_)) && (self.this.is_none() || !self.strict_this)
    }

    /// Something of what may be the global object is wanted; if it is a `this`, it may be any other object as well.
    pub(super) fn give_global(&mut self, want: Want) {
        self.give(self.flow.undeclared, want);
        self.this.into_iter().for_each(|this| self.give(this, want));
    }

    fn binary(&mut self, it: &BinaryExpression<'a>) {
        use BinaryOperator::{Equality, In, Inequality, Instanceof, StrictEquality, StrictInequality};
        self.like_type_arguments(it);
        if it.operator != Instanceof {
            self.plain_use(&it.left, it.span);
            self.plain_use(&it.right, it.span);
        }
        match it.operator {
            In => {
                self.expression(&it.left, Want::Plain);
                match self.path(&it.right) {
                    Some(path) if path.root == super::path::Root::State && path.is_root() => {
                        self.has(&super::path::key_of(&it.left), path.position);
                    }
                    _ => self.expression(&it.right, Want::Plain),
                }
            }
            Instanceof => {
                // which may be a method of the right one's
                let place = self.flow.place();
                self.expression(&it.left, Want::Into(place));
                self.expression(&it.right, Want::Into(place));
            }
            Equality | Inequality | StrictEquality | StrictInequality => {
                self.expression(&it.left, Want::Test);
                self.expression(&it.right, Want::Test);
            }
            _ => {
                self.expression(&it.left, Want::Plain);
                self.expression(&it.right, Want::Plain);
            }
        }
    }

    fn array(&mut self, it: &ArrayExpression<'a>, want: Want) {
        let want = if want == Want::Plain { want } else { Want::Into(self.place_of(want)) };
        for item in &it.elements {
            match item {
                ArrayExpressionElement::SpreadElement(it) => self.spread(it, want),
                item => {
                    if let Some(value) = item.as_expression() {
                        self.expression(value, want);
                    }
                }
            }
        }
    }

    pub(super) fn spread(&mut self, it: &SpreadElement<'a>, want: Want) {
        self.plain_use(&it.argument, it.span);
        self.expression(&it.argument, want);
    }

    fn object(&mut self, it: &ObjectExpression<'a>, want: Want) {
        let want = if want == Want::Plain { want } else { Want::Into(self.place_of(want)) };
        for property in &it.properties {
            match property {
                ObjectPropertyKind::SpreadProperty(it) => {
                    self.plain_use(&it.argument, it.span);
                    self.enumerated(&it.argument, want);
                }
                ObjectPropertyKind::ObjectProperty(it) => {
                    self.property_key(&it.key);
                    self.own_method(&property_key(&it.key), &it.value);
                    self.expression(&it.value, want);
                }
            }
        }
    }

    /// The handler gives something a method that may be called like a built-in one.
    pub(super) fn own_method(&mut self, key: &Step<'a>, value: &Expression<'a>) {
        let is_function = matches!(
            peel(value),
            Expression::ArrowFunctionExpression(_) | Expression::FunctionExpression(_) | Expression::ClassExpression(_)
        );
        self.flow.own_methods |= match key.name() {
            Some(name) => super::fresh::gives_new(name) && (is_function || self.fresh(value) != Fresh::Made),
            None => is_function,
        };
    }

    pub(super) fn property_key(&mut self, key: &PropertyKey<'a>) {
        if let Some(key) = key.as_expression() {
            self.plain_use(key, key.span());
            self.expression(key, Want::Plain);
        }
    }
}
