//! Functions and classes: what goes in and out of one is one place.

use oxc_ast::ast::*;
use oxc_ast_visit::Visit;

use super::flow::Place;
use super::fresh::{Fresh, gives_new};
use super::path::property_key;
use super::scope::{function_names, parameter_names};
use super::walk::{Walker, Want, is_strict};

impl<'a> Walker<'a, '_> {
    /// Names that a body declares.
    pub(super) fn hoisted(&mut self, statements: &[Statement<'a>]) -> Vec<&'a str> {
        let (names, doubtful) = function_names(statements, !self.strict, &mut self.pace);
        // one of them hides a global, or does not: nothing is certain any more
        self.doubts += u32::from(doubtful);
        names
    }

    /// A function: what goes in and out of it is at `place`.
    fn function(
        &mut self,
        params: &FormalParameters<'a>,
        body: Option<&FunctionBody<'a>>,
        value: Option<&Expression<'a>>,
        place: Place,
        own_this: bool,
    ) {
        let outer = (self.returns, self.this, self.strict, self.strict_this, self.doubts);
        self.returns = Some(place);
        self.strict |= body.is_some_and(is_strict);
        if own_this {
            (self.this, self.strict_this) = (Some(place), self.strict);
        }
        self.doubts += 1;
        let mut names = Vec::new();
        parameter_names(params, &mut names);
        let parameters = names.clone();
        self.scopes.enter(names);
        for name in &parameters {
            self.joined(name, place, Fresh::Old);
        }
        self.visit_formal_parameters(params);
        if let Some(value) = value {
            self.expression(value, Want::Into(place));
        }
        if let Some(body) = body {
            let names = self.hoisted(&body.statements);
            self.scopes.enter(names);
            // a `var` of the same name begins with the parameter's value
            for name in &parameters {
                self.joined(name, place, Fresh::Old);
            }
            self.declare_aliases(&body.statements);
            self.visit_statements(&body.statements);
            self.scopes.leave();
        }
        self.scopes.leave();
        (self.returns, self.this, self.strict, self.strict_this, self.doubts) = outer;
    }

    /// A variable may hold what is at a place.
    pub(super) fn joined(&mut self, name: &str, place: Place, fresh: Fresh) {
        if let Some(binding) = self.scopes.lookup(name) {
            let own = self.flow.of(binding);
            self.flow.join(own, place);
            self.flow.assigned(binding, fresh);
        }
    }

    pub(super) fn any_function(&mut self, it: &Function<'a>, place: Place) {
        let Some(body) = &it.body else { return };
        let own_name: Vec<_> = it.id.iter().filter(|_| it.is_expression()).map(|id| id.name.as_str()).collect();
        self.scopes.enter(own_name.clone());
        own_name.iter().for_each(|name| self.joined(name, place, Fresh::Old));
        self.function(&it.params, Some(body), None, place, true);
        self.scopes.leave();
    }

    pub(super) fn arrow(&mut self, it: &ArrowFunctionExpression<'a>, place: Place) {
        match &it.body {
            ArrowFunctionBody::FunctionBody(body) => self.function(&it.params, Some(body), None, place, false),
            body => self.function(&it.params, None, body.as_expression(), place, false),
        }
    }

    pub(super) fn class(&mut self, it: &Class<'a>, place: Place) {
        let strict = std::mem::replace(&mut self.strict, true);
        self.scopes.enter(it.id.iter().map(|id| id.name.as_str()).collect());
        it.id.iter().for_each(|id| self.joined(id.name.as_str(), place, Fresh::Old));
        if let Some(heritage) = &it.heritage {
            self.expression(&heritage.expression, Want::Into(place));
        }
        // computed names belong to what is around the class: `this` is another there
        self.perhaps(|is| {
            it.body.body.iter().filter_map(ClassElement::property_key).for_each(|key| is.property_key(key))
        });
        let outer =
            (self.returns.replace(place), self.this.replace(place), std::mem::replace(&mut self.strict_this, true));
        let extends = it.heritage.is_some();
        self.perhaps(|is| it.body.body.iter().for_each(|member| is.member(member, place, extends)));
        (self.returns, self.this, self.strict_this) = outer;
        self.scopes.leave();
        self.strict = strict;
    }

    fn member(&mut self, it: &ClassElement<'a>, place: Place, extends: bool) {
        if super::erase::is_type_only_member(it) {
            return;
        }
        match it {
            ClassElement::MethodDefinition(it) => {
                self.flow.own_methods |= property_key(&it.key).name().is_none_or(gives_new);
                self.any_function(&it.value, place);
            }
            ClassElement::StaticBlock(it) => {
                let names = self.hoisted(&it.body);
                self.scopes.enter(names);
                self.declare_aliases(&it.body);
                self.visit_statements(&it.body);
                self.scopes.leave();
            }
            ClassElement::PropertyDefinition(it) => {
                if let Some(value) = &it.value {
                    self.own_method(&property_key(&it.key), value);
                    self.expression(value, Want::Into(place));
                }
                // the class that this one extends may have made `this` of anything
                if extends && !it.r#static {
                    self.flow.write(place, Fresh::Old);
                }
            }
            ClassElement::AccessorProperty(it) => {
                if let Some(value) = &it.value {
                    self.expression(value, Want::Into(place));
                }
            }
            ClassElement::TSIndexSignature(_) => {}
        }
    }
}
